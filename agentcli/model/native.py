"""The kernels of ``kernels.c``, where they have been built: decoding on a processor.

PyTorch's own products of a few rows reach half of the memory's speed or less on processors without
AVX-512, and a step of a small model is mostly the cost of calling it. These kernels read weights
at the speed of memory, and do a whole block at one call. They are optional: without them everything
computes as PyTorch does. They take a few tokens of float32 activations where no gradient is wanted.
How they are built is in ``kernel_build.py``; the engine's process is told where they are.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_long, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from agentcli.model.kv_cache import KVCache, Span
    from agentcli.model.rope import CosSin

# So many rows at most: from there on reading the weights is not what costs.
FEW = 48
# A block has its attention done row by row, which pays for fewer.
FEW_TOKENS = 16
# Inputs that share a scale in 4 bits; a row of a matrix is a multiple of two groups.
GROUP = 32
COLUMNS = 2 * GROUP
LARGEST_HEAD = 512

_SIGNATURES = {
    "linear": [c_void_p, c_void_p, c_void_p, c_long],
    "widen_int4": [c_void_p, c_void_p, c_void_p, c_void_p, c_long],
    "block": [c_void_p, c_void_p, c_void_p, c_void_p],
}

_library: Any = None
_wide = torch.empty(0)


class Matrix(ctypes.Structure):
    """A matrix as ``kernels.c`` has it. Points into tensors that its owner keeps."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "scales", "zeros", "bias")),
        *((name, c_long) for name in ("bits", "outputs", "inputs")),
    )


class Block(ctypes.Structure):
    """What stays the same for a layer."""

    _fields_ = (
        *((name, c_void_p) for name in ("attn_norm", "attn_post", "mlp_norm", "mlp_post")),
        *((name, c_void_p) for name in ("q_norm", "k_norm", "gate")),
        *((name, Matrix) for name in ("qkv", "attn_proj", "up", "mlp_proj")),
        *((name, c_long) for name in ("width", "heads", "kv_heads", "dim", "window")),
        *((name, c_long) for name in ("qk", "post", "mlp")),
        *((name, c_float) for name in ("scale", "softcap", "eps", "offset")),
    )


class Step(ctypes.Structure):
    """What differs from step to step and from layer to layer."""

    _fields_ = (
        *((name, c_long) for name in ("batch", "tokens", "start")),
        ("positions", c_void_p),
        ("capacity", c_long),
        *((name, c_void_p) for name in ("k", "v", "cos", "sin")),
        *((name, c_long) for name in ("tables", "rotated")),
        ("values", c_void_p),
    )


def use(path: Path | str | None) -> bool:
    """Computes with the library at ``path`` from now on; None: without. Whether it can be used."""
    global _library
    _library = None
    if path is None:
        return False
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError):  # not there, or built for something else
        return False
    _library = library
    return True


def loaded() -> bool:
    """Whether there is a library."""
    return _library is not None


def few(x: Tensor) -> bool:
    """Whether the kernels take such activations (..., width)."""
    return (
        _library is not None
        and x.dtype is torch.float32
        and x.numel() <= FEW * x.shape[-1]
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
    )


def linear(x: Tensor, matrix: Matrix) -> Tensor:
    """(..., inputs) float32 -> (..., outputs)."""
    x = x.contiguous()
    y = x.new_empty((*x.shape[:-1], matrix.outputs))
    rows = x.numel() // matrix.inputs
    _library.linear(y.data_ptr(), x.data_ptr(), ctypes.addressof(matrix), rows)
    return y


def steps(
    x: Tensor,
    span: Span,
    cos_sin: CosSin | None,
    cache: KVCache,
    value_embed: Tensor | None,
    layer: int,
) -> Step | None:
    """What ``block`` is told of this step in this layer; None where the kernels cannot take it."""
    keys, values = cache.k[layer], cache.v[layer]
    batch, tokens, _ = x.shape
    if tokens > FEW_TOKENS or not few(x) or keys.dtype is not torch.float32:
        return None
    step = Step(batch, tokens, span.start, None, keys.shape[1], keys.data_ptr(), values.data_ptr())
    if span.positions is not None:
        step.positions = span.positions.data_ptr()
    if cos_sin is not None:
        cos, sin = cos_sin
        step.cos, step.sin = cos.data_ptr(), sin.data_ptr()
        step.tables, step.rotated = cos.shape[0], cos.shape[-1]
    if value_embed is not None:
        step.values = value_embed.data_ptr()
    return step


def block(x: Tensor, block: Block, step: Step) -> Tensor:
    """(B, T, C) -> (B, T, C); keys and values are stored."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _library.block(y.data_ptr(), x.data_ptr(), ctypes.addressof(block), ctypes.addressof(step))
    return y


def widened(weight: Tensor) -> Tensor:
    """A float32 copy of a matrix, good until the next is asked for: one piece of memory serves."""
    return _space(weight.numel()).view(weight.shape).copy_(weight)


def widened_int4(packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Likewise for packed int4, (groups * 32,)."""
    groups = packed.numel() // (GROUP // 2)
    wide = _space(groups * GROUP)
    pointers = [tensor.data_ptr() for tensor in (wide, packed, scales, zeros)]
    _library.widen_int4(*pointers, groups)
    return wide


def _space(count: int) -> Tensor:
    global _wide
    if _wide.numel() < count:
        with torch.inference_mode(False):
            _wide = torch.empty(count)
    return _wide[:count]
