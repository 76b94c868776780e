"""Weight-only quantisation: matrices in 8 or 4 bits, activations unchanged.

int8 is symmetric with one scale per output row; int4 has a scale and a zero point per group of 32
inputs of a row. Products use the kernels of ``native.py`` if they are built (see ``streamed.py``),
else PyTorch's (aten ``_weight_int8pack_mm`` and ``_weight_int4pack_mm``). Prompts, which have
enough rows to keep the matrix units busy, are multiplied with expanded weights.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agentcli.errors import ModelError
from agentcli.model.gpt import GPT
from agentcli.model.streamed import (
    StreamedInt4Linear,
    StreamedInt8Linear,
    matrices,
    prepare_blocks,
    round_to_rows,
    streams,
    widen_stream,
)

Scheme = Literal["int8", "int4"]

GROUP = 32
# From this many rows on, expanding the weights once is faster than the quantised kernels.
EXPAND_ROWS = 32


class Int8Linear(nn.Module):
    """y = x @ (weight * scale[:, None]).T + bias, with weight (out, in) int8 and scale (out,)."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        rounded, scale = round_to_rows(weight)
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale.to(weight.dtype))
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if x.is_cuda or rows >= EXPAND_ROWS:
            # torch.compile fuses the conversion with the product.
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        else:
            flat = x.reshape(rows, -1)
            y = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale.to(x.dtype))
            y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias

    def expanded(self) -> Tensor:
        """Return the dequantised matrix, (out, in)."""
        return self.weight.to(self.scale.dtype) * self.scale[:, None]


class Int4Linear(nn.Module):
    """w = (q - 8) * scale + zero, with q in 0..15 and a scale and zero per group of 32 inputs.

    ``packed`` has q in the kernel's layout; ``scales`` (in / 32, out, 2) has scale and zero.
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.shape = (weight.shape[0], weight.shape[1])
        q, scales = _round_to_groups(weight.detach())
        self.register_buffer("packed", _pack(q))
        self.register_buffer("scales", scales.to(weight.dtype))
        self.register_buffer("bias", None if bias is None else bias.detach())

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernels support a matrix of this shape."""
        rows, columns = weight.shape
        if weight.is_cuda:
            return rows % 8 == 0 and columns % 128 == 0 and weight.dtype == torch.bfloat16
        return rows % 16 == 0 and columns % GROUP == 0

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        multiply = (
            torch.ops.aten._weight_int4pack_mm
            if x.is_cuda
            else torch.ops.aten._weight_int4pack_mm_for_cpu
        )
        y: Tensor = multiply(flat, self.packed, GROUP, self.scales.to(x.dtype))
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias

    def expanded(self) -> Tensor:
        """Return the dequantised matrix, (out, in)."""
        identity = torch.eye(self.shape[1], dtype=self.scales.dtype, device=self.scales.device)
        bias, self.bias = self.bias, None
        try:
            return self.forward(identity).T
        finally:
            self.bias = bias


def quantize_model(model: GPT, scheme: Scheme) -> None:
    """Quantise the matrices of ``model`` in place, one after another.

    With int4, the head is still int8, because it decides between nearly equal logits. A tied head
    becomes an int8 copy of the embedding, which itself is not quantised: its rows are looked up.

    Raises:
        ModelError: the scheme is unknown.
    """
    if scheme not in ("int8", "int4"):
        raise ModelError(f"unknown quantisation {scheme!r}; known are int8 and int4")
    found = matrices(model)
    streamed = streams(model)
    if streamed:
        widen_stream(model)
    int8 = StreamedInt8Linear if streamed else Int8Linear
    int4 = StreamedInt4Linear if streamed else Int4Linear
    if model.lm_head is None:
        model.lm_head = int8(model.embedding_weight)
    while found:  # frees each matrix before it quantises the next
        parent, name, matrix = found.pop()
        use_int4 = scheme == "int4" and name != "lm_head" and int4.fits(matrix.weight)
        narrow = int4 if use_int4 else int8
        setattr(parent, name, narrow(matrix.weight, matrix.bias))
    if streamed:
        prepare_blocks(model)


def _round_to_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return q (out, in) int32 in 0..15, and (in / GROUP, out, 2) scales and zeros."""
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-8)
    q = ((groups - low) / scale).round().clamp(0, 15)
    zero = low + 8 * scale
    pairs = torch.cat((scale, zero), -1).transpose(0, 1).contiguous()
    return q.view(rows, columns).to(torch.int32), pairs


def _pack(q: Tensor) -> Tensor:
    if not q.is_cuda:
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1)
        return packed
    # The CUDA kernel takes two values per byte, the first in the high bits, in tiles of 8 x 16.
    bytes_ = (q[:, ::2] << 4 | q[:, 1::2]).to(torch.uint8)
    packed = torch.ops.aten._convert_weight_to_int4pack(bytes_, 8)
    return packed
