"""Attention behind one function: flash-attn where possible, else PyTorch's SDPA.

The kernel is chosen from the tensors at each call, never at import; ``backend`` forces one. The
layout is always (batch, time, heads, head_dim), like that of the flash kernels and the KV cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.model.kv_cache import Span

Backend = Literal["auto", "flash", "sdpa", "math"]

# Queries per block when scores are materialised, or when a window hides most keys.
QUERY_BLOCK = 512

_forced: Backend = "auto"


@contextmanager
def backend(kind: Backend) -> Iterator[None]:
    """Force one kernel within the context: for tests, benchmarks and debugging."""
    global _forced
    before, _forced = _forced, kind
    try:
        yield
    finally:
        _forced = before


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    span: Span,
    *,
    scale: float,
    window: int | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Compute causal attention of the queries of ``span`` over all keys so far.

    Args:
        q: Queries, (B, T, H, D).
        k: Keys, (B, S, Hkv, D), key j at position j; H is a multiple of Hkv.
        v: Values, (B, S, Hkv, D).
        span: The positions of the queries.
        scale: Scores are q·k * scale.
        window: A query at position p sees the keys p - window .. p; None: all keys up to p.
        softcap: If not 0, scores become softcap * tanh(score / softcap).

    Returns:
        The output, (B, T, H, D).

    Raises:
        ModelError: flash-attn is forced, but cannot run.
    """
    if window is not None and window >= span.end - 1:
        window = None  # the window covers all keys
    if _forced == "math" or (softcap and not _flash_fits(q, span)):
        return _math(q, k, v, span, scale, window, softcap)
    if _flash_fits(q, span):
        return _flash(q, k, v, scale, window, softcap)
    return _sdpa(q, k, v, span, scale, window)


# --- flash-attn --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _flash_function() -> Callable[..., Any] | None:
    """Return flash_attn_func of the newest flash-attn that can be imported (4, 3 or 2)."""
    for name in ("flash_attn.cute", "flash_attn_interface", "flash_attn"):
        try:
            function: Callable[..., Any] = importlib.import_module(name).flash_attn_func
        except (ImportError, AttributeError, OSError, RuntimeError):  # absent or incompatible
            continue
        return function
    return None


def _flash_fits(q: Tensor, span: Span) -> bool:
    if _forced in ("sdpa", "math"):
        return False
    # Rows at different positions need a mask, which flash_attn_func does not accept.
    fits = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and span.positions is None
    if _forced == "flash":
        if not fits or _flash_function() is None:
            raise ModelError("flash-attn is forced, but cannot run here with these tensors")
        return True
    # Compiled graphs use SDPA: torch can trace it, and it has the same kernels.
    return fits and not torch.compiler.is_compiling() and _flash_function() is not None


def _flash(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, softcap: float
) -> Tensor:
    function = _flash_function()
    assert function is not None
    # "No limit" is None in flash-attn 4, -1 in its predecessors.
    unlimited = None if ".cute" in function.__module__ else -1
    left = unlimited if window is None else window
    # flash-attn aligns its causal mask to the last key, as a KV cache requires.
    y = function(q, k, v, softmax_scale=scale, causal=True, window_size=(left, 0), softcap=softcap)
    return y[0] if isinstance(y, tuple) else y  # type: ignore[no-any-return]


# --- SDPA --------------------------------------------------------------------------------------


def _sdpa(q: Tensor, k: Tensor, v: Tensor, span: Span, scale: float, window: int | None) -> Tensor:
    n_query, n_key = q.shape[1], k.shape[1]
    if span.positions is not None:
        return _sdpa_masked(q, k, v, span.visible(n_key, window, q.device), scale)
    if n_query == 1:
        # One query sees a contiguous slice of keys, and needs no mask.
        start = 0 if window is None else max(0, n_key - window - 1)
        return _sdpa_few(q, k[:, start:], v[:, start:], None, scale)
    if window is not None and n_query >= 2 * max(window, QUERY_BLOCK):
        return _sdpa_banded(q, k, v, scale, window)
    if window is not None:
        return _sdpa_masked(q, k, v, span.visible(n_key, window, q.device), scale)
    if n_query == n_key:
        return _sdpa_full(q, k, v, None, scale, causal=True)
    if q.is_cuda:
        # This bias keeps the flash kernel, which a boolean mask would rule out. Its module loads
        # torch's compiler, which takes seconds, so it is imported only here.
        from torch.nn.attention.bias import causal_lower_right

        return _sdpa_full(q, k, v, causal_lower_right(n_query, n_key), scale)
    return _sdpa_masked(q, k, v, span.visible(n_key, None, q.device), scale)


def _sdpa_banded(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> Tensor:
    """Attend block by block to the keys each block sees; for windows shorter than the queries."""
    n_query, offset = q.shape[1], k.shape[1] - q.shape[1]
    block = max(window, QUERY_BLOCK)
    parts = []
    for start in range(0, n_query, block):
        stop = min(start + block, n_query)
        first = max(0, offset + start - window)  # oldest key that the block's first query sees
        last = offset + stop
        mask = Span(offset + start - first, stop - start).visible(
            last - first, window, device=q.device
        )
        parts.append(
            _sdpa_masked(q[:, start:stop], k[:, first:last], v[:, first:last], mask, scale)
        )
    return torch.cat(parts, 1)


def _sdpa_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend with a mask (B or 1, 1, T, S) bool, True where the query sees the key."""
    mask = mask.to(q.device)
    if q.shape[1] <= 16 and not torch.is_grad_enabled():
        return _sdpa_few(q, k, v, mask, scale)
    return _sdpa_full(q, k, v, mask, scale)


def _sdpa_few(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Fold the heads that share keys into more queries, so that each key is read only once."""
    b, t, h, d = q.shape
    n_kv = k.shape[2]
    group = h // n_kv
    if t == 1:
        y = F.scaled_dot_product_attention(
            q.reshape(b, n_kv, group, d),
            k.transpose(1, 2),  # (B, Hkv, S, D)
            v.transpose(1, 2),
            attn_mask=mask,
            scale=scale,
        )  # (B, Hkv, G, D)
        return y.reshape(b, 1, h, d)
    # (B, T, Hkv, G, D) -> (B, Hkv, G * T, D)
    grouped = q.view(b, t, n_kv, group, d).permute(0, 2, 3, 1, 4).reshape(b, n_kv, group * t, d)
    if mask is not None:
        mask = mask.repeat(1, 1, group, 1)
    y = F.scaled_dot_product_attention(
        grouped, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return y.view(b, n_kv, group, t, d).permute(0, 3, 1, 2, 4).reshape(b, t, h, d)


def _sdpa_full(
    q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, *, causal: bool = False
) -> Tensor:
    y = F.scaled_dot_product_attention(
        q.transpose(1, 2),  # (B, H, T, D)
        k.transpose(1, 2),  # (B, Hkv, S, D)
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return y.transpose(1, 2)


# --- plain mathematics -------------------------------------------------------------------------


def _math(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    span: Span,
    scale: float,
    window: int | None,
    softcap: float,
) -> Tensor:
    """Compute the scores explicitly, in blocks of queries, with softmax in float32.

    For softcaps without flash-attn, and for tests.
    """
    b, n_query, h, d = q.shape
    n_kv = k.shape[2]
    mask = span.visible(k.shape[1], window, device=q.device)[:, :, None]  # (B, 1, 1, T, S)
    grouped = q.view(b, n_query, n_kv, h // n_kv, d).permute(0, 2, 3, 1, 4)  # (B, Hkv, G, T, D)
    keys = k.permute(0, 2, 3, 1)[:, :, None]  # (B, Hkv, 1, D, S)
    values = v.transpose(1, 2)[:, :, None]  # (B, Hkv, 1, S, D)
    parts = []
    for start in range(0, n_query, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, n_query)
        scores = (grouped[:, :, :, start:stop] @ keys) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~mask[:, :, :, start:stop], float("-inf"))
        wide = torch.promote_types(scores.dtype, torch.float32)
        parts.append(scores.softmax(-1, dtype=wide).to(q.dtype) @ values)
    y = torch.cat(parts, 3)  # (B, Hkv, G, T, D)
    return y.permute(0, 3, 1, 2, 4).reshape(b, n_query, h, d)
