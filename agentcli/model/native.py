"""Bindings for ``kernels.c``: fast decoding on CPUs.

PyTorch's products of a few rows reach half the memory bandwidth or less, and in a small model most
of a step is call overhead. These kernels read weights at full memory bandwidth, and compute a whole
block per call. They apply to a few tokens of float32 activations without gradients, and are
optional: without them, PyTorch computes everything.
``kernel_build.py`` builds them; the engine process is told where they are.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_long, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from agentcli.model.kv_cache import KVCache, Span
    from agentcli.model.rope import CosSin

# The most rows the kernels take; with more, reading the weights is no longer the bottleneck.
FEW = 48
# The most tokens for a whole block, whose attention is computed row by row.
FEW_TOKENS = 16
# Inputs that share a scale in int4; the inputs of a matrix must be a multiple of two groups.
GROUP = 32
COLUMNS = 2 * GROUP
# Outputs whose weights the kernel for int4 multiplies together.
PANEL = 8
LARGEST_HEAD = 512

_SIGNATURES = {
    "linear": [c_void_p, c_void_p, c_void_p, c_long],
    "widen_int4": [c_void_p, c_void_p],
    "block": [c_void_p, c_void_p, c_void_p, c_void_p],
    "multiplies_bfloat16": [],
}

_library: Any = None
_wide = torch.empty(0, dtype=torch.uint8)


class Matrix(ctypes.Structure):
    """``Matrix`` of products.h. Points into tensors that the owner must keep alive."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "scales", "zeros", "bias")),
        *((name, c_long) for name in ("bits", "outputs", "inputs")),
    )


class Block(ctypes.Structure):
    """``Block`` of kernels.c: the constants of a layer."""

    _fields_ = (
        *((name, c_void_p) for name in ("attn_norm", "attn_post", "mlp_norm", "mlp_post")),
        *((name, c_void_p) for name in ("q_norm", "k_norm", "gate")),
        *((name, Matrix) for name in ("qkv", "attn_proj", "up", "mlp_proj")),
        *((name, c_long) for name in ("width", "heads", "kv_heads", "dim", "window")),
        *((name, c_long) for name in ("qk", "post", "mlp")),
        *((name, c_float) for name in ("scale", "softcap", "eps", "offset")),
    )


class Step(ctypes.Structure):
    """``Step`` of kernels.c: the arguments of one step in one layer."""

    _fields_ = (
        *((name, c_long) for name in ("batch", "tokens", "start")),
        ("positions", c_void_p),
        ("capacity", c_long),
        *((name, c_void_p) for name in ("k", "v", "cos", "sin")),
        *((name, c_long) for name in ("tables", "rotated")),
        ("values", c_void_p),
    )


def use(path: Path | str | None) -> bool:
    """Use the library at ``path`` from now on, or none; return whether the kernels are loaded."""
    global _library
    _library = None
    if path is None:
        return False
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError):  # missing, or not our library
        return False
    library.multiplies_bfloat16.restype = c_int
    _library = library
    return True


def loaded() -> bool:
    """Whether the kernels are loaded."""
    return _library is not None


def multiplies_bfloat16() -> bool:
    """Whether the kernels are loaded, and the CPU has instructions for products of bfloat16.

    The inputs of products with bfloat16 weights are then rounded to it.
    """
    return _library is not None and bool(_library.multiplies_bfloat16())


def few(x: Tensor) -> bool:
    """Whether the kernels apply to these activations (..., width)."""
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
    """Return the arguments of ``block`` for one layer; None if the kernels do not apply."""
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
    """Compute a block, (B, T, C) -> (B, T, C), and store its keys and values."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _library.block(y.data_ptr(), x.data_ptr(), ctypes.addressof(block), ctypes.addressof(step))
    return y


def widened(weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a copy of a matrix in ``dtype``, valid until the next call: all share one buffer."""
    return _buffer(weight.numel(), dtype).view(weight.shape).copy_(weight)


def widened_int4(matrix: Matrix) -> Tensor:
    """Return a dequantised copy of an int4 matrix, (out, in) float32; see ``widened``."""
    wide = _buffer(matrix.outputs * matrix.inputs, torch.float32)
    _library.widen_int4(wide.data_ptr(), ctypes.addressof(matrix))
    return wide.view(matrix.outputs, matrix.inputs)


def _buffer(count: int, dtype: torch.dtype) -> Tensor:
    global _wide
    size = count * dtype.itemsize
    if _wide.numel() < size:
        with torch.inference_mode(False):
            _wide = torch.empty(size, dtype=torch.uint8)
    return _wide[:size].view(dtype)
