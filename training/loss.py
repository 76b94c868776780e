"""Cross-entropy over softcapped logits, a chunk of positions at a time.

The logits of a whole batch (65,536 x 8192 in float32: 2 GiB, and as much again for the gradient)
are never in memory at once: each chunk's gradients are computed together with its loss, so nothing
is kept for the backward pass and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 16_384  # positions


def _piece(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (summed loss, its gradient for hidden, its gradient for head) for one chunk.

    hidden (N, C) and head (V, C) in the compute dtype, targets (N,), weights (N,) float32.
    """
    logits = cap * torch.tanh((hidden @ head.T).float() / cap)  # (N, V)
    total = logits.logsumexp(-1, keepdim=True)  # (N, 1)
    chosen = logits.gather(1, targets[:, None])  # (N, 1)
    loss = ((total - chosen)[:, 0] * weights).sum()
    is_target = torch.arange(head.shape[0], device=head.device)[None] == targets[:, None]
    slope = (torch.exp(logits - total) - is_target.float()) * weights[:, None]
    # d (cap tanh(z / cap)) / dz = 1 - tanh²
    slope = (slope * (1 - (logits / cap) ** 2)).to(hidden.dtype)
    return loss, slope @ head, slope.T @ hidden


class _CappedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        cap: float,
        piece: Callable[..., tuple[Tensor, Tensor, Tensor]],
    ) -> Tensor:
        weights = weights / weights.sum().clamp_min(1e-6)
        cast = head.to(hidden.dtype)
        by_hidden, by_head = torch.empty_like(hidden), torch.zeros_like(head)
        loss = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            add, by_hidden[part], grad = piece(
                hidden[part], cast, targets[part], weights[part], cap
            )
            loss += add
            by_head += grad
        ctx.save_for_backward(by_hidden, by_head)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_head = ctx.saved_tensors
        (grad,) = grads
        return by_hidden * grad.to(by_hidden.dtype), by_head * grad, None, None, None, None


class CrossEntropy:
    """Weighted mean of the cross-entropy of (B, T) targets; ``compiled`` on the device."""

    def __init__(self, cap: float, *, compiled: bool) -> None:
        self.cap = cap
        self.piece = torch.compile(_piece, dynamic=False) if compiled else _piece

    def __call__(self, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """hidden (B, T, C), head (V, C), in nats per weight."""
        hidden, targets, weights = hidden.flatten(0, 1), targets.flatten(), weights.flatten()
        if self.piece is _piece:
            # Positions that do not count need no logits; compiled code needs a constant shape.
            counted = weights.nonzero()[:, 0]
            hidden, targets, weights = hidden[counted], targets[counted], weights[counted]
        loss: Tensor = _CappedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, head, targets, weights, self.cap, self.piece
        )
        return loss
