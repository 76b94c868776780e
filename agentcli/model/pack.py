"""bfloat16 weights on the CPU in oneDNN's own layout.

A plain bfloat16 product reorders its weights each time; for one row that costs more than the
product. Packed once, decoding reads weights at nearly the speed of memory. Needs AVX-512 (or
AMX); other processors do better with float32, see ``suited_dtype``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model.gpt import GPT

# Small gates are not worth a layout of their own.
SMALLEST = 4096


class PackedLinear(nn.Module):
    """A linear layer whose weight only oneDNN can read."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        # Not a buffer: such a tensor cannot be moved or copied like others.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return y


def pack_model(model: GPT) -> bool:
    """Packs the matrices of a bfloat16 model on the CPU, in place; False where that is no use."""
    weight = model.embedding_weight
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not can_pack():
        return False
    if model.lm_head is None:
        model.lm_head = PackedLinear(weight)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child.weight.numel() >= SMALLEST:
                setattr(parent, name, PackedLinear(child.weight, child.bias))
    return True


def can_pack() -> bool:
    """Tries it: whether this processor and this torch can, and compute the same."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator).to(torch.bfloat16)
    x = torch.randn(3, 96, generator=generator).to(torch.bfloat16)
    try:
        y = PackedLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(y.float(), F.linear(x.float(), weight.float()), rtol=0.05, atol=0.3)


def suited_dtype(device: torch.device | str, stored: torch.dtype) -> torch.dtype:
    """``stored``, but float32 for half precision on a CPU that multiplies it slowly."""
    half = stored in (torch.bfloat16, torch.float16)
    if half and torch.device(device).type == "cpu" and not can_pack():
        return torch.float32
    return stored
