"""What nanochat adds to a plain transformer (karpathy/nanochat, nanochat/gpt.py).

x0 = smear(norm(wte[token]))                      bigram information for one gate
for block i: x = resid_lambda[i] x + x0_lambda[i] x0, then the block, whose attention adds
             to its values an embedding of the token, gated by the input, in every other layer
after block L // 2: keep x;  at the end: x = x - backout_lambda * kept
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model.config import SMEAR_CHANNELS, VALUE_GATE_CHANNELS


def smear(x: Tensor, previous: Tensor, gate: nn.Module, strength: Tensor) -> Tensor:
    """x_t + strength * sigmoid(gate(x_t[:24])) * x_(t-1), with x before smearing on both sides.

    x and previous are (B, T, C); where there is no earlier position, previous is zero.
    """
    opening = strength.to(x.dtype) * torch.sigmoid(gate(x[..., :SMEAR_CHANNELS]))  # (B, T, 1)
    return x + opening * previous


def shifted(x: Tensor, first: Tensor | None = None) -> Tensor:
    """x of the position before; ``first`` (B, 1, C) stands before x, zero if None."""
    if first is None:
        return F.pad(x[:, :-1], (0, 0, 1, 0))
    return torch.cat((first, x[:, :-1]), 1)


def add_value_embedding(v: Tensor, embedded: Tensor, x: Tensor, gate: nn.Module) -> Tensor:
    """v + 3 sigmoid(gate(x[:12])) * embedded, one gate per key/value head.

    v is (B, T, Hkv, D), embedded (B, T, Hkv * D), x (B, T, C) the input of the attention.
    """
    opening = 3 * torch.sigmoid(gate(x[..., :VALUE_GATE_CHANNELS]))  # (B, T, Hkv)
    return v + opening[..., None] * embedded.view_as(v)


def mix_residual(x: Tensor, x0: Tensor, resid_lambda: Tensor, x0_lambda: Tensor) -> Tensor:
    """The lambdas are scalars (0-dim), so they do not change the dtype of the stream."""
    return resid_lambda * x + x0_lambda * x0


def backout(x: Tensor, middle: Tensor, strength: Tensor) -> Tensor:
    """Takes what the first half of the layers knew out of the stream before the head."""
    return x - strength.to(x.dtype) * middle


@torch.no_grad()
def init_weights(model: nn.Module, n_layer: int, n_embd: int, generator: torch.Generator) -> None:
    """nanochat's initialisation, by parameter name; ``generator`` is a CPU generator.

    Embedding normal 0.8, head normal 0.001, projections out of a block zero, other matrices
    uniform with standard deviation 1 / sqrt(n_embd) (0.4 of it for c_fc), gates slightly open.
    """
    bound = 3**0.5 * n_embd**-0.5
    depth = torch.arange(n_layer) / max(n_layer - 1, 1)
    for name, parameter in model.named_parameters():
        if name == "resid_lambdas":
            value = 1.15 - 0.10 * depth
        elif name == "x0_lambdas":
            value = 0.20 - 0.15 * depth
        elif name == "smear_lambda":
            value = torch.zeros(1)
        elif name == "backout_lambda":
            value = torch.full((1,), 0.2)
        elif "c_proj" in name:
            value = torch.zeros(parameter.shape)
        elif name.endswith("wte.weight"):
            value = torch.empty(parameter.shape).normal_(0.0, 0.8, generator=generator)
        elif name.endswith("lm_head.weight"):
            value = torch.empty(parameter.shape).normal_(0.0, 0.001, generator=generator)
        else:
            low, high = -bound, bound
            if "c_fc" in name:
                low, high = 0.4 * low, 0.4 * high
            elif "gate" in name:
                low, high = 0.0, 0.02
            value = torch.empty(parameter.shape).uniform_(low, high, generator=generator)
        parameter.copy_(value)
