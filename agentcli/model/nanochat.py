"""What nanochat adds to a plain transformer (karpathy/nanochat, nanochat/gpt.py).

x0 = smear(norm(wte[token]))             adds bigram information through one gate
for each block i:
    x = resid_lambda[i] * x + x0_lambda[i] * x0
    x = block(x)                         in every other layer, the values in attention get a token
                                         embedding added, gated by the input
    middle = x, if i == L // 2
x = x - backout_lambda * middle
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model.config import SMEAR_CHANNELS, VALUE_GATE_CHANNELS


def smear(x: Tensor, previous: Tensor, gate: nn.Module, strength: Tensor) -> Tensor:
    """Return x_t + strength * sigmoid(gate(x_t[:24])) * x_(t-1), where both x are unsmeared.

    x and previous are (B, T, C); previous is zero at positions without a predecessor.
    """
    opening = strength.to(x.dtype) * torch.sigmoid(gate(x[..., :SMEAR_CHANNELS]))  # (B, T, 1)
    return x + opening * previous


def shifted(x: Tensor, first: Tensor | None = None) -> Tensor:
    """Shift x by one position; ``first`` (B, 1, C) precedes x, or zero if None."""
    if first is None:
        return F.pad(x[:, :-1], (0, 0, 1, 0))
    return torch.cat((first, x[:, :-1]), 1)


def add_value_embedding(v: Tensor, embedded: Tensor, x: Tensor, gate: nn.Module) -> Tensor:
    """Return v + 3 * sigmoid(gate(x[:12])) * embedded, with one gate per key/value head.

    v is (B, T, Hkv, D), embedded (B, T, Hkv * D), and x (B, T, C) the input of the attention.
    """
    opening = 3 * torch.sigmoid(gate(x[..., :VALUE_GATE_CHANNELS]))  # (B, T, Hkv)
    return v + opening[..., None] * embedded.view_as(v)


def mix_residual(x: Tensor, x0: Tensor, resid_lambda: Tensor, x0_lambda: Tensor) -> Tensor:
    """Return resid_lambda * x + x0_lambda * x0.

    The lambdas are 0-dim tensors, and so do not change the dtype of the residual stream.
    """
    return resid_lambda * x + x0_lambda * x0


def backout(x: Tensor, middle: Tensor, strength: Tensor) -> Tensor:
    """Subtract a share of the residual stream's state after the first half of the layers."""
    return x - strength.to(x.dtype) * middle


@torch.no_grad()
def init_weights(model: nn.Module, n_layer: int, n_embd: int, generator: torch.Generator) -> None:
    """Initialise the parameters as nanochat does; ``generator`` is a CPU generator.

    The embedding is normal with standard deviation 0.8, the head with 0.001. Output projections of
    a block are zero. Other matrices are uniform with standard deviation 1 / sqrt(n_embd) (0.4 times
    that for c_fc). Gates start slightly open.
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
