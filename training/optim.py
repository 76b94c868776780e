"""Muon for the matrices of the blocks, AdamW for everything else; for tuning, AdamW for both.

Muon (Jordan et al. 2024): momentum, then its nearest orthogonal matrix by a few Newton-Schulz steps
(coefficients of Polar Express, Amsel et al. 2025, arXiv:2505.16932), then each row normalized to
the same second moment (NorMuon, arXiv:2510.05491), and weight decay only where it agrees with the
step. Matrices of the same shape are updated together. Learning rates are as in nanochat, scaled by
width.

Each of Muon's steps moves all directions of a matrix by the same amount, however few a gradient
points to, so tuning trained weights with it unlearns more than AdamW does at a low rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
MOMENTUM, SECOND_MOMENT = 0.95, 0.9
# Momentum grows to its value over these steps, as the first gradients are the least representative.
MOMENTUM_STEPS, MOMENTUM_START = 300, 0.85


@dataclass(frozen=True)
class Rates:
    """Learning rates at the width of 768 (AdamW's are scaled by sqrt(768 / width))."""

    matrix: float = 0.02
    adam_matrix: float = 0.0  # AdamW's for matrices, not scaled; if positive, instead of Muon
    embedding: float = 0.3
    head: float = 0.008
    scalar: float = 0.5
    weight_decay: float = 0.1


def orthogonal(momentum: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrices, (N, rows, columns): singular values near 1.

    In bfloat16 on a GPU; many CPUs multiply bfloat16 hundreds of times slower than float32.
    """
    x: Tensor = momentum.bfloat16() if momentum.is_cuda else momentum
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6).to(x.dtype)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _muon_step(
    grad: Tensor,
    weight: Tensor,
    momentum: Tensor,
    second: Tensor,
    rate: Tensor,
    decay: Tensor,
    inertia: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """New (weight, momentum, second), each (N, rows, columns) or (N, rows, 1); float32."""
    momentum = torch.lerp(grad, momentum, inertia)
    update = orthogonal(torch.lerp(grad, momentum, inertia)).float()  # Nesterov
    size = update.square().mean(-1, keepdim=True)  # (N, rows, 1)
    second = torch.lerp(size, second, SECOND_MOMENT)
    scale = second.clamp_min(1e-10).rsqrt()
    # Rows change relative to each other; the norm of the whole matrix stays.
    before = size.sum(-2, keepdim=True)
    after = (size * scale.square()).sum(-2, keepdim=True).clamp_min(1e-10)
    update = update * scale * (before / after).sqrt()
    agrees = (update * weight) >= 0
    weight = weight - rate * (update + decay * weight * agrees)
    return weight, momentum, second


class Optimiser:
    """Both optimisers of a GPT; ``step`` takes the factors of the schedule."""

    def __init__(self, model: nn.Module, width: int, rates: Rates, *, compiled: bool) -> None:
        self.rates = rates
        self.steps = 0
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        others: dict[str, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            kind = _kind(name)
            if kind == "matrix" and not rates.adam_matrix:
                by_shape[parameter.shape].append(parameter)
            else:
                others[kind].append(parameter)
        self.matrices = list(by_shape.values())
        self.momenta = [torch.zeros_like(torch.stack(list(group))) for group in self.matrices]
        self.seconds = [torch.zeros_like(momentum[..., :1]) for momentum in self.momenta]
        self._muon: Callable[..., tuple[Tensor, Tensor, Tensor]] = _muon_step
        if compiled:
            self._muon = torch.compile(_muon_step, dynamic=False)
        scale = (768 / width) ** 0.5
        settings: dict[str, dict[str, Any]] = {
            "matrix": {"lr": rates.adam_matrix, "betas": (0.9, 0.99)},
            "embedding": {"lr": rates.embedding * scale, "betas": (0.8, 0.95)},
            "head": {"lr": rates.head * scale, "betas": (0.8, 0.95)},
            "gate": {"lr": rates.matrix, "betas": (0.8, 0.95)},
            "resid": {"lr": rates.scalar * 0.01, "betas": (0.8, 0.95)},
            "x0": {"lr": rates.scalar, "betas": (0.96, 0.95)},
            "scalar": {"lr": 0.4 * rates.scalar, "betas": (0.8, 0.95)},
        }
        groups = [{"params": found, **settings[kind]} for kind, found in others.items()]
        device = next(model.parameters()).device
        self.adam = torch.optim.AdamW(
            groups, eps=1e-10, weight_decay=0.0, fused=device.type in ("cuda", "cpu")
        )
        self.base = [float(group["lr"]) for group in self.adam.param_groups]

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """``rate`` and ``decay`` multiply the learning rates and the weight decay: 1 to 0."""
        grown = min(1.0, self.steps / MOMENTUM_STEPS)
        inertia = torch.tensor(MOMENTUM_START + grown * (MOMENTUM - MOMENTUM_START))
        for i, group in enumerate(self.matrices):
            rows, columns = group[0].shape
            # An orthogonal update changes a wide layer's outputs less; this compensates for it.
            matrix_rate = self.rates.matrix * rate * max(1.0, rows / columns) ** 0.5
            # 0-dim tensors rather than numbers, so that a new value does not trigger recompilation.
            weights, self.momenta[i], self.seconds[i] = self._muon(
                torch.stack([_grad(parameter) for parameter in group]),
                torch.stack(list(group)),
                self.momenta[i],
                self.seconds[i],
                torch.tensor(matrix_rate),
                torch.tensor(self.rates.weight_decay * decay),
                inertia,
            )
            torch._foreach_copy_(group, list(weights.unbind()))  # type: ignore[arg-type]
        for group_, base in zip(self.adam.param_groups, self.base, strict=True):
            group_["lr"] = base * rate
        self.adam.step()
        self.steps += 1

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)
        for group in self.matrices:
            for parameter in group:
                parameter.grad = None

    def state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "momenta": self.momenta,
            "seconds": self.seconds,
            "adam": self.adam.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.momenta, self.seconds = state["momenta"], state["seconds"]
        self.adam.load_state_dict(state["adam"])


def _kind(name: str) -> str:
    if name.startswith(("transformer.wte", "value_embeds")):
        return "embedding"
    if name.startswith("lm_head"):
        return "head"
    if "gate" in name:
        return "gate"
    if name.startswith("transformer.h."):
        return "matrix"
    return {"resid_lambdas": "resid", "x0_lambdas": "x0"}.get(name, "scalar")


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
