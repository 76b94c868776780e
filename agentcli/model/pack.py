"""bfloat16 weights on the processor, in a form that is read at nearly the speed of memory.

With AVX-512 or AMX that is oneDNN's own layout: a plain product reorders its weights each time,
which for one row costs more than the product. Elsewhere it is the kernels of ``native.py``, which
read the weights where they are and keep the stream in float32. Where neither is to be had,
float32 weights do better, see ``suited_dtype``.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model import native
from agentcli.model.gpt import GPT
from agentcli.model.streamed import StreamedLinear, matrices, prepare_blocks, streams, widen_stream


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
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if can_pack():
        kind: type[PackedLinear] | type[StreamedLinear] = PackedLinear
    elif streams(model):
        kind = StreamedLinear
        widen_stream(model)
    else:
        return False
    found = matrices(model)
    while found:  # each is let go before the next is made
        parent, name, matrix = found.pop()
        setattr(parent, name, kind(matrix.weight, matrix.bias))
    if model.lm_head is None:  # tied: the kernels read the embedding itself
        model.lm_head = kind(weight)
    prepare_blocks(model)
    return True


@cache
def can_pack() -> bool:
    """Tries it: whether this processor and this torch can pack, and compute the same."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator).to(torch.bfloat16)
    x = torch.randn(3, 96, generator=generator).to(torch.bfloat16)
    try:
        y = PackedLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(y.float(), F.linear(x.float(), weight.float()), rtol=0.05, atol=0.3)


def suited_dtype(device: torch.device | str, stored: torch.dtype) -> torch.dtype:
    """``stored``, but where a CPU multiplies half precision slowly float32, and bfloat16 stays
    only where the kernels read it."""
    if torch.device(device).type != "cpu" or can_pack():
        return stored
    slow = stored == torch.float16 or (stored == torch.bfloat16 and not native.loaded())
    return torch.float32 if slow else stored
