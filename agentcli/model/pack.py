"""Fast bfloat16 weights, read at nearly the full memory bandwidth.

On CUDA, ``triton_kernels.py`` reads them. On CPUs, it depends on what there is.
The kernels of ``native.py`` read the weights as they are, with the residual stream in float32.
Without the kernels, CPUs with AVX-512 or AMX have them packed in oneDNN's layout: otherwise each
product reorders its weights, which for one row costs more than the product itself. Without either,
float32 weights are faster, see ``suited_dtype``.
"""

from __future__ import annotations

import importlib
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.model import native
from agentcli.model.gpt import GPT
from agentcli.model.streamed import StreamedLinear, matrices, prepare_blocks, streams, widen_stream


class PackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's opaque layout."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        # Not a buffer, because such a tensor cannot be moved or copied.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
        return y


def pack_model(model: GPT) -> bool:
    """Pack the matrices of a bfloat16 model on the CPU, in place; on CUDA, choose fast kernels.

    Returns False, and changes nothing, if the model or the CPU cannot benefit.
    """
    weight = model.embedding_weight
    if weight.device.type == "cuda":
        return _choose_kernels(model)
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    kind: type[PackedLinear] | type[StreamedLinear]
    if streams(model):
        kind = StreamedLinear
        widen_stream(model)
    elif can_pack():
        kind = PackedLinear
    else:
        return False
    found = matrices(model)
    while found:  # frees each matrix before it packs the next
        parent, name, matrix = found.pop()
        setattr(parent, name, kind(matrix.weight, matrix.bias))
    if model.lm_head is None:  # tied: the kernels read the embedding itself
        model.lm_head = kind(weight)
    prepare_blocks(model)
    return True


def _choose_kernels(model: GPT) -> bool:
    """Let a model on CUDA decode with Triton, if it is installed and the model is not float32."""
    if model.embedding_weight.dtype == torch.float32:
        return False
    try:  # Triton comes with PyTorch's CUDA builds for Linux
        kernels = importlib.import_module("agentcli.model.triton_kernels")
    except ImportError:
        return False
    prepared: bool = kernels.prepare(model)
    return prepared


@cache
def can_pack() -> bool:
    """Whether packing works on this CPU with this torch, determined by trying it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator).to(torch.bfloat16)
    x = torch.randn(3, 96, generator=generator).to(torch.bfloat16)
    try:
        y = PackedLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(y.float(), F.linear(x.float(), weight.float()), rtol=0.05, atol=0.3)


def suited_dtype(device: torch.device | str, stored: torch.dtype) -> torch.dtype:
    """Return the fastest dtype for weights stored in ``stored``.

    On a CPU that computes slowly in half precision, that is float32; bfloat16 is kept if the
    kernels of ``native.py`` are loaded.
    """
    if torch.device(device).type != "cpu" or can_pack():
        return stored
    slow = stored == torch.float16 or (stored == torch.bfloat16 and not native.loaded())
    return torch.float32 if slow else stored
