"""A decode step of one token per row in a few Triton kernels per block, for CUDA.

Such a step reads every weight once and computes little, so it should cost what reading costs. With
PyTorch's kernels, a block takes more than twenty of them, most of which move a few kilobytes and
cost their launch; products of one row reach only part of the bandwidth; and attention reads a mask.
Here a block takes five, or six if the keys are split among programs:

    q, k, v = product(norm(x))       the norm is computed along with the product
    y = attend(q, k, v)              rotates q and k, stores k and v, and attends to the cache
    x = x + product(y)
    hidden = act(gate(norm(x))) * up(norm(x))
    x = x + product(hidden)

Products of more than one row are PyTorch's. The split over keys follows Flash-Decoding (Dao et al.
2023). Import this module only with CUDA: it needs Triton, which comes with PyTorch's CUDA builds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from agentcli.model import nanochat

if TYPE_CHECKING:
    from agentcli.model.config import MlpKind
    from agentcli.model.gpt import GPT, MLP, Attention, Block, Linear, Norm
    from agentcli.model.kv_cache import KVCache, Span
    from agentcli.model.rope import CosSin

# A program attends to at least this many keys, and to more if there are this many programs.
KEYS, PROGRAMS = 256, 256
# Tensor cores multiply at least this many rows.
LEAST_ROWS = 16
HALF = (torch.bfloat16, torch.float16)


# --- kernels -----------------------------------------------------------------------------------


@triton.jit
def _product(
    y: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    gain: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    eps: tl.tensor,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    NORM: tl.constexpr,
    OFFSET: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """y (OUTPUTS,) = act(norm(x) @ weight.T + bias) + residual, for one row x (INPUTS,).

    A gated activation takes weights (2 * OUTPUTS, INPUTS): act(gate) * up. The norm scales all
    inputs by one factor, so the outputs are scaled by it instead, when all squares are summed.
    """
    GATED: tl.constexpr = ACTIVATION == "silu_gate" or ACTIVATION == "gelu_gate"
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = weight + tl.minimum(n, OUTPUTS - 1).to(tl.int64)[:, None] * INPUTS
    up_rows = rows + OUTPUTS * INPUTS
    out = tl.zeros((BLOCK_N,), tl.float32)
    up_out = tl.zeros((BLOCK_N,), tl.float32)
    squares = tl.zeros((BLOCK_K,), tl.float32)
    # Weights are read one iteration ahead.
    w = _tile(rows, 0, INPUTS, BLOCK_K)
    up = _tile(up_rows, 0, INPUTS, BLOCK_K) if GATED else w
    for start in tl.range(0, INPUTS, BLOCK_K):
        next_w = _tile(rows, start + BLOCK_K, INPUTS, BLOCK_K)
        next_up = _tile(up_rows, start + BLOCK_K, INPUTS, BLOCK_K) if GATED else w
        k = start + tl.arange(0, BLOCK_K)
        value = tl.load(x + k, k < INPUTS, 0.0, eviction_policy="evict_last").to(tl.float32)
        if NORM:
            squares += value * value
            if gain is not None:
                value *= tl.load(gain + k, k < INPUTS, 0.0).to(tl.float32) + OFFSET
        out += tl.sum(w.to(tl.float32) * value[None, :], 1)
        if GATED:
            up_out += tl.sum(up.to(tl.float32) * value[None, :], 1)
        w, up = next_w, next_up
    there = n < OUTPUTS
    if NORM:
        factor = tl.rsqrt(tl.sum(squares, 0) / INPUTS + eps)
        out *= factor
        up_out *= factor
    if bias is not None:
        out += tl.load(bias + n, there, 0.0).to(tl.float32)
        if GATED:
            up_out += tl.load(bias + OUTPUTS + n, there, 0.0).to(tl.float32)
    out = _activated(out, up_out, ACTIVATION)
    if residual is not None:
        out += tl.load(residual + n, there, 0.0).to(tl.float32)
    tl.store(y + n, out, there)


@triton.jit
def _tile(
    rows: tl.tensor,
    start: tl.tensor,
    INPUTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """Read the weights of some ``rows`` from the input ``start`` on; those past the end are 0."""
    k = start + tl.arange(0, BLOCK_K)[None, :]
    return tl.load(rows + k, k < INPUTS, 0.0, eviction_policy="evict_first")


@triton.jit
def _activated(x: tl.tensor, up: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    if ACTIVATION == "relu2":
        x = tl.maximum(x, 0.0)
        x *= x
    elif ACTIVATION == "silu_gate":
        x *= tl.sigmoid(x) * up
    elif ACTIVATION == "gelu_gate":  # with tanh(a) = 2 * sigmoid(2 * a) - 1
        x *= tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)) * up
    return x


@triton.jit
def _norm(
    y: tl.tensor,
    x: tl.tensor,
    gain: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """y (rows, WIDTH) = RMSNorm(x)."""
    row = tl.program_id(0)
    n = tl.arange(0, BLOCK)
    there = n < WIDTH
    value = tl.load(x + row * WIDTH + n, there, 0.0).to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) / WIDTH + eps)
    if gain is not None:
        value *= tl.load(gain + n, there, 0.0).to(tl.float32) + OFFSET
    tl.store(y + row * WIDTH + n, value, there)


@triton.jit
def _activate(
    y: tl.tensor,
    x: tl.tensor,
    OUTPUTS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """y (rows, OUTPUTS) = act(x), or act(gate) * up for x (rows, 2 * OUTPUTS)."""
    GATED: tl.constexpr = ACTIVATION == "silu_gate" or ACTIVATION == "gelu_gate"
    row = tl.program_id(0)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = n < OUTPUTS
    x += row * OUTPUTS * (2 if GATED else 1)
    value = tl.load(x + n, there, 0.0).to(tl.float32)
    up = tl.load(x + OUTPUTS + n, there, 0.0).to(tl.float32) if GATED else value
    tl.store(y + row * OUTPUTS + n, _activated(value, up, ACTIVATION), there)


@triton.jit
def _rotated(
    heads: tl.tensor,
    gain: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    n: tl.tensor,
    there: tl.tensor,
    eps: tl.tensor,
    DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    QK_NORM: tl.constexpr,
    OFFSET: tl.constexpr,
) -> tl.tensor:
    """Load the heads ``n`` (N,), norm and rotate them: (N, DIM) float32."""
    d = tl.arange(0, DIM)
    # Channel i of the first half is paired with channel i of the second.
    partner = tl.where(d < ROTATED // 2, d + ROTATED // 2, d - ROTATED // 2)
    partner = tl.where(d < ROTATED, partner, d)
    start = heads + n[:, None] * DIM
    x = tl.load(start + d[None, :], there[:, None], 0.0).to(tl.float32)
    other = tl.load(start + partner[None, :], there[:, None], 0.0).to(tl.float32)
    if QK_NORM == "before_rope":
        factor = tl.rsqrt(tl.sum(x * x, 1) / DIM + eps)[:, None]
        x *= factor
        other *= factor
        if gain is not None:
            x *= (tl.load(gain + d).to(tl.float32) + OFFSET)[None, :]
            other *= (tl.load(gain + partner).to(tl.float32) + OFFSET)[None, :]
    if ROTATED > 0:
        c = tl.load(cos + d, d < ROTATED, 1.0).to(tl.float32)
        s = tl.load(sin + d, d < ROTATED, 0.0).to(tl.float32)
        x = x * c[None, :] + other * s[None, :]
    if QK_NORM == "after_rope":
        x *= tl.rsqrt(tl.sum(x * x, 1) / DIM + eps)[:, None]
        if gain is not None:
            x *= (tl.load(gain + d).to(tl.float32) + OFFSET)[None, :]
    return x


@triton.jit
def _capped(scores: tl.tensor, softcap: tl.tensor, CAPPED: tl.constexpr) -> tl.tensor:
    if CAPPED:
        scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)
    return scores


@triton.jit
def _attend(
    y: tl.tensor,
    parts: tl.tensor,
    qkv: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    positions: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    q_gain: tl.tensor,
    k_gain: tl.tensor,
    capacity: tl.tensor,
    share: tl.tensor,
    window: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    eps: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    QK_NORM: tl.constexpr,
    OFFSET: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Attention of one token of a row, for the queries that share one head of keys.

    The program ``split`` attends to ``share`` keys, from split * share on. The first one also
    stores the new key and value and attends to them; the others do not read them, so that the
    order of the programs does not matter.
    """
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    d, g, one = tl.arange(0, DIM), tl.arange(0, GROUP), tl.arange(0, 1)
    mine = g < HEADS // KV_HEADS
    number = head * (HEADS // KV_HEADS) + g
    heads = qkv + row * (HEADS + 2 * KV_HEADS) * DIM
    cos += row * ROTATED
    sin += row * ROTATED
    dtype: tl.constexpr = keys.dtype.element_ty
    q = _rotated(heads, q_gain, cos, sin, number, mine, eps, DIM, ROTATED, QK_NORM, OFFSET).to(
        dtype
    )  # (GROUP, DIM)
    start_of_row = row.to(tl.int64) * capacity * KV_HEADS * DIM + head * DIM
    keys += start_of_row
    values += start_of_row
    best = tl.full((GROUP,), float("-inf"), tl.float32)
    weight = tl.zeros((GROUP,), tl.float32)
    total = tl.zeros((GROUP, DIM), tl.float32)
    if split == 0:
        k = _rotated(
            heads,
            k_gain,
            cos,
            sin,
            HEADS + head + one,
            one == 0,
            eps,
            DIM,
            ROTATED,
            QK_NORM,
            OFFSET,
        ).to(dtype)  # (1, DIM)
        v = tl.load(heads + (HEADS + KV_HEADS + head) * DIM + d)
        slot = position.to(tl.int64) * KV_HEADS * DIM
        tl.store(keys + slot + d[None, :], k)
        tl.store(values + slot + d, v)
        score = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale
        best = _capped(score, softcap, CAPPED)
        weight += 1.0
        total += v.to(tl.float32)[None, :]
    first = split * share
    last = tl.minimum(first + share, position)
    if WINDOWED:
        first = tl.maximum(first, position - window)
    for start in tl.range(first, last, BLOCK):
        at = start + tl.arange(0, BLOCK)
        seen = at < last
        slots = at.to(tl.int64) * KV_HEADS * DIM
        k = tl.load(keys + slots[None, :] + d[:, None], seen[None, :], 0.0)  # (DIM, BLOCK)
        v = tl.load(values + slots[:, None] + d[None, :], seen[:, None], 0.0)  # (BLOCK, DIM)
        scores = _capped(tl.dot(q, k) * scale, softcap, CAPPED)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp(best - higher)
        scores = tl.exp(scores - higher[:, None])
        weight = weight * shrink + tl.sum(scores, 1)
        total = total * shrink[:, None] + tl.dot(scores.to(dtype), v)
        best = higher
    out = row * HEADS + number
    if parts is None:
        total /= weight[:, None]
        tl.store(y + out[:, None] * DIM + d[None, :], total, mine[:, None])
    else:
        part = parts + (out * tl.num_programs(2) + split) * (DIM + 2)
        tl.store(part[:, None] + d[None, :], total, mine[:, None])
        tl.store(part + DIM, best, mine)
        tl.store(part + DIM + 1, weight, mine)


@triton.jit
def _combine(y: tl.tensor, parts: tl.tensor, SPLITS: tl.constexpr, DIM: tl.constexpr) -> None:
    """Combine the parts (SPLITS, DIM + 2) of one head: sums, largest score, sum of weights."""
    head = tl.program_id(0)
    d = tl.arange(0, DIM)
    part = parts + (head * SPLITS + tl.arange(0, SPLITS)) * (DIM + 2)
    total = tl.load(part[:, None] + d[None, :])
    best, weight = tl.load(part + DIM), tl.load(part + DIM + 1)
    share = tl.exp(best - tl.max(best, 0))
    total = tl.sum(total * share[:, None], 0) / tl.sum(weight * share, 0)
    tl.store(y + head * DIM + d, total)


# --- calls -------------------------------------------------------------------------------------


def prepare(model: GPT) -> bool:
    """Let the model use these kernels where they apply; return whether they can be compiled."""
    if not _compiles(model.device):
        return False
    model.multiply_row = multiply_row
    for block in model.blocks:
        block.step = step
    return True


@lru_cache(maxsize=1)
def _compiles(device: torch.device) -> bool:
    """Whether Triton works here, determined by trying it: it needs a C compiler, for instance."""
    x = torch.ones(1, 1, 256, dtype=torch.bfloat16, device=device)
    try:
        y = product(x, x[0])
    except Exception:  # of many kinds
        return False
    return y.item() == 256


def multiply_row(x: Tensor, matrix: nn.Module) -> Tensor | None:
    """Return x @ weight.T in float32 for a single row; None if it is not one, or quantised."""
    if x.shape[:-1].numel() != 1 or torch.is_grad_enabled() or not _multiplies(x, matrix):
        return None
    weight: Tensor = matrix.weight  # type: ignore[assignment]
    return product(x, weight, dtype=torch.float32)


def _applies(block: Block, x: Tensor, span: Span, cache: KVCache) -> bool:
    """Whether this is one token per row, in half precision, with weights not quantised."""
    attn, mlp = block.attn, block.mlp
    return (
        x.shape[1] == 1
        and span.positions is not None
        and not torch.is_grad_enabled()
        and attn.head_dim in (16, 32, 64, 128, 256)
        and attn.fused
        and (mlp.fused or mlp.kind == "relu2")
        and cache.k[attn.layer].dtype == x.dtype
        and all(_multiplies(x, m) for m in (attn.c_qkv, attn.c_proj, _up(mlp), mlp.c_proj))
    )


def _multiplies(x: Tensor, matrix: nn.Module) -> bool:
    if not isinstance(matrix, (nn.Linear, nn.Embedding)):  # quantised
        return False
    return x.dtype == matrix.weight.dtype and x.dtype in HALF


def _up(mlp: MLP) -> Linear:
    return mlp.c_gate_fc if mlp.fused else mlp.c_fc


def step(
    block: Block,
    x: Tensor,
    span: Span,
    cos_sin: CosSin | None,
    cache: KVCache,
    value_embed: Tensor | None,
) -> Tensor | None:
    """Compute a block for one token per row, (B, 1, C) -> (B, 1, C), and store keys and values.

    Returns None, and does nothing, if the kernels do not apply.
    """
    if not _applies(block, x, span, cache):
        return None
    attn, mlp = block.attn, block.mlp
    qkv = linear(x, attn.c_qkv, norm=block.attn_norm)  # (B, 1, (H + 2 Hkv) * D)
    if value_embed is not None:
        heads = qkv.view(*qkv.shape[:2], -1, attn.head_dim)
        v = heads[:, :, -attn.heads[1] :]
        v.copy_(nanochat.add_value_embedding(v, value_embed, block.attn_norm(x), attn.ve_gate))
    y = attend(attn, qkv, span, cos_sin, cache)  # (B, 1, H * D)
    if block.post_norms:
        x = x + block.attn_post_norm(linear(y, attn.c_proj))
    else:
        x = linear(y, attn.c_proj, residual=x)
    hidden = linear(x, _up(mlp), norm=block.mlp_norm, activation=mlp.kind)  # (B, 1, n_hidden)
    if block.post_norms:
        x = x + block.mlp_post_norm(linear(hidden, mlp.c_proj))
        return x
    return linear(hidden, mlp.c_proj, residual=x)


def tiles(outputs: int, inputs: int) -> tuple[int, int, int]:
    """Return the outputs and inputs per iteration of a program of ``_product``, and its warps.

    Each thread reads four times 16 bytes, which was fastest for most shapes on an H200.
    """
    if inputs % 4096 == 0:
        return 4, 4096, 16
    if outputs < 1024 < inputs <= 8192:  # few programs, so each takes a whole output
        block_k = triton.next_power_of_2(inputs)
        return 1, block_k, block_k // 1024
    return 4, 1024, 4


def linear(
    x: Tensor,
    matrix: Linear,
    *,
    norm: Norm | None = None,
    activation: MlpKind | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Return act(norm(x) @ weight.T + bias) + residual, (B, 1, inputs) -> (B, 1, outputs).

    For a gated activation, the first half of the weights' rows are the gates.
    """
    if x.shape[0] == 1:
        return product(x, matrix.weight, matrix.bias, norm, activation, residual)
    y: Tensor = matrix(x if norm is None else rms_norm(x, norm))
    if activation is not None:
        y = activate(y, activation)
    return y if residual is None else y.add_(residual)


def rms_norm(x: Tensor, norm: Norm) -> Tensor:
    """Return norm(x) for (B, 1, C)."""
    y, width = torch.empty_like(x), x.shape[-1]
    _norm[(x.shape[0],)](
        y,
        x,
        norm.weight,
        norm.eps,
        WIDTH=width,
        OFFSET=float(norm.offset),
        BLOCK=triton.next_power_of_2(width),
        num_warps=8 if width > 1024 else 4,
    )
    return y


def activate(x: Tensor, activation: MlpKind) -> Tensor:
    """(B, 1, outputs) -> (B, 1, outputs), or half of them for a gated activation."""
    outputs = x.shape[-1] // (1 if activation == "relu2" else 2)
    y = x.new_empty((*x.shape[:-1], outputs))
    _activate[(x.shape[0], triton.cdiv(outputs, 1024))](
        y, x, OUTPUTS=outputs, ACTIVATION=activation, BLOCK=1024
    )
    return y


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: Norm | None = None,
    activation: MlpKind | None = None,
    residual: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``linear`` for one row: (1, 1, inputs) -> (1, 1, outputs), in ``dtype`` or that of x."""
    outputs, inputs = weight.shape
    if activation not in (None, "relu2"):
        outputs //= 2
    y = x.new_empty((*x.shape[:-1], outputs), dtype=dtype)
    block_n, block_k, warps = tiles(outputs, inputs)
    _product[(triton.cdiv(outputs, block_n),)](
        y,
        x,
        weight,
        None if norm is None else norm.weight,
        bias,
        residual,
        0.0 if norm is None else norm.eps,
        OUTPUTS=outputs,
        INPUTS=inputs,
        NORM=norm is not None,
        OFFSET=0.0 if norm is None else float(norm.offset),
        ACTIVATION=activation or "",
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=warps,
    )
    return y


def attend(
    attn: Attention, qkv: Tensor, span: Span, cos_sin: CosSin | None, cache: KVCache
) -> Tensor:
    """Rotate q and k, store k and v, and attend: (B, 1, (H + 2 Hkv) * D) -> (B, 1, H * D)."""
    keys, values = cache.k[attn.layer], cache.v[attn.layer]
    batch, capacity, n_kv, dim = keys.shape
    n_head, window = attn.heads[0], attn.window
    if window is not None and window >= span.end - 1:
        window = None
    # As many programs as the device runs at once, if each has enough to do.
    wanted = min(PROGRAMS // (batch * n_kv), triton.cdiv(span.end, KEYS))
    splits = 1 << max(wanted, 1).bit_length() - 1
    y = qkv.new_empty((batch, 1, n_head * dim))
    parts = None
    if splits > 1:
        parts = qkv.new_empty((batch, n_head, splits, dim + 2), dtype=torch.float32)
    cos, sin = (qkv, qkv) if cos_sin is None else cos_sin
    normed = attn.qk_norm != "none"
    _attend[(batch, n_kv, splits)](
        y,
        parts,
        qkv,
        keys,
        values,
        span.positions,
        cos,
        sin,
        attn.q_norm.weight if normed else None,
        attn.k_norm.weight if normed else None,
        capacity,
        triton.cdiv(span.end, splits),
        window or 0,
        attn.scale,
        attn.softcap,
        attn.q_norm.eps if normed else 0.0,
        HEADS=n_head,
        KV_HEADS=n_kv,
        DIM=dim,
        ROTATED=0 if cos_sin is None else cos.shape[-1],
        QK_NORM=attn.qk_norm,
        OFFSET=float(normed and attn.q_norm.offset),
        CAPPED=attn.softcap != 0,
        WINDOWED=window is not None,
        GROUP=max(LEAST_ROWS, triton.next_power_of_2(n_head // n_kv)),
        BLOCK=64 if dim <= 128 else 32,
        num_warps=4,
    )
    if splits > 1:
        _combine[(batch * n_head,)](y, parts, SPLITS=splits, DIM=dim)
    return y
