"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864) and their scalings.

They are half-split: channel i of the first half is paired with channel i of the second half.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from agentcli.model.config import RopeConfig, RopeScaling
from agentcli.model.kv_cache import Span

# Initial length of a table, which doubles as needed; 8192 x 128 float32 pairs take 8 MB.
FIRST_TABLE = 8192

CosSin = tuple[Tensor, Tensor]


class Rotary(nn.Module):
    """A table of cos and sin for one RopeConfig that grows on demand.

    The table stays float32 when the model's dtype changes, because bfloat16 cannot represent the
    angles of large positions. It follows the model to other devices, but is not saved with it.
    """

    def __init__(self, rope: RopeConfig, sequence_len: int) -> None:
        super().__init__()
        self.rope = rope
        self.sequence_len = sequence_len
        self.cos, self.sin = self._build(min(sequence_len, FIRST_TABLE), torch.device("cpu"))

    def forward(self, span: Span, like: Tensor) -> CosSin:
        """Return cos and sin for the positions of ``span``, in the dtype of ``like``.

        Each is (1, T, 1, dim), or (B, T, 1, dim) if the rows are at different positions.
        """
        if span.end > self.cos.shape[0]:
            longer = max(span.end, 2 * self.cos.shape[0])
            self.cos, self.sin = self._build(longer, self.cos.device)
        if span.positions is None:
            cos = self.cos[None, span.start : span.end, None]
            sin = self.sin[None, span.start : span.end, None]
        else:
            cos = self.cos[span.positions][:, :, None]
            sin = self.sin[span.positions][:, :, None]
        return cos.to(like.dtype), sin.to(like.dtype)

    def _build(self, length: int, device: torch.device) -> CosSin:
        """Build cos and sin, each (length, dim), with the signs of ``rotate`` in sin."""
        frequencies, factor = inverse_frequencies(self.rope, self.sequence_len)
        positions = torch.arange(length, dtype=torch.float64, device="cpu")
        angles = positions[:, None] * frequencies  # (length, dim / 2)
        cos, sin = angles.cos() * factor, angles.sin() * factor
        if self.rope.reverse:
            sin = -sin
        both = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return both[0].float().to(device), both[1].float().to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        device = fn(torch.empty(0, device=self.cos.device)).device
        if device.type != "meta":
            self.cos, self.sin = self.cos.to(device), self.sin.to(device)
        return self


def rotate(x: Tensor, cos_sin: CosSin) -> Tensor:
    """Rotate the first ``dim`` channels of each head; x is (B, T, heads, head_dim)."""
    cos, sin = cos_sin
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], cos_sin), x[..., dim:]), -1)
    first, second = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat((second, first), -1), sin)


def inverse_frequencies(rope: RopeConfig, sequence_len: int) -> tuple[Tensor, float]:
    """Return the radians per position of each pair, (dim / 2,) float64, and a factor for cos, sin.

    ``sequence_len`` is the context the model runs with; only LongRoPE depends on it.
    """
    steps = torch.arange(0, rope.dim, 2, dtype=torch.float64, device="cpu") / rope.dim
    frequencies = rope.base**-steps
    scaling = rope.scaling
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    if scaling.kind == "yarn":
        return _yarn(frequencies, rope, scaling), _yarn_factor(scaling)
    return _longrope(frequencies, scaling, sequence_len)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Scale low frequencies, keep high ones and interpolate between them (Llama 3.1)."""
    turns = scaling.original_len * frequencies / (2 * math.pi)  # within the trained context
    width = scaling.high_freq_factor - scaling.low_freq_factor
    keep = ((turns - scaling.low_freq_factor) / width).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def _yarn(frequencies: Tensor, rope: RopeConfig, scaling: RopeScaling) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv:2309.00071), section 3.2: NTK by parts."""

    def pair_with(turns: float) -> float:
        """Return the index of the pair that turns this often within the trained context."""
        length = scaling.original_len / (turns * 2 * math.pi)
        return rope.dim * math.log(length) / (2 * math.log(rope.base))

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    if low == high:
        high += 0.001
    pairs = torch.arange(rope.dim // 2, dtype=torch.float64, device="cpu")
    stretch = ((pairs - low) / (high - low)).clamp(0, 1)
    return frequencies * (1 - stretch + stretch / scaling.factor)


def _yarn_factor(scaling: RopeScaling) -> float:
    """Return the attention factor of section 3.3, which grows with the log of the scaling."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def sharpen(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return sharpen(scaling.mscale) / sharpen(scaling.mscale_all_dim)
    return sharpen(1.0)


def _longrope(frequencies: Tensor, scaling: RopeScaling, sequence_len: int) -> tuple[Tensor, float]:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753), as used by Phi-3.

    The context that the model runs with selects the short or the long factors, once: keys in the
    cache are already rotated, and cannot change when the conversation grows.
    """
    long = sequence_len > scaling.original_len
    factors = scaling.long_factors if long else scaling.short_factors
    attention_factor = scaling.attention_factor
    if attention_factor is None:
        growth = math.log(scaling.factor) / math.log(scaling.original_len)
        attention_factor = 1.0 if scaling.factor <= 1 else math.sqrt(1 + growth)
    divisors = torch.tensor(factors, dtype=torch.float64, device="cpu")
    return frequencies / divisors, attention_factor
