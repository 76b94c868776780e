"""Properties of the rotary tables that the logits of the families do not show."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agentcli.model import rope as rope_module
from agentcli.model.config import RopeConfig, RopeScaling
from agentcli.model.kv_cache import Span
from agentcli.model.rope import Rotary, inverse_frequencies, rotate


def test_longrope_takes_the_long_factors_past_the_trained_context() -> None:
    scaling = RopeScaling("longrope", 4.0, 4096, short_factors=(1.0, 2.0), long_factors=(8.0, 16.0))
    rope = RopeConfig(10_000.0, 4, scaling)
    short, factor = inverse_frequencies(rope, 4096)
    long, _ = inverse_frequencies(rope, 16_384)
    assert short.tolist() == [1.0, 0.01 / 2]
    assert long.tolist() == [1.0 / 8, 0.01 / 16]
    assert factor == math.sqrt(1 + math.log(4) / math.log(4096))


def test_table_grows_and_stays_float32() -> None:
    rotary = Rotary(RopeConfig(100.0, 8), sequence_len=16)
    rotary.to(torch.bfloat16)
    like = torch.zeros(0)
    cos, _ = rotary(Span(60, 2), like)
    expected = math.cos(61 * 100.0 ** (-2 / 8))
    assert cos.dtype == torch.float32
    assert math.isclose(float(cos[0, 1, 0, 1]), expected, abs_tol=1e-6)
    assert not list(rotary.state_dict())


def test_directions() -> None:
    x = torch.randn(1, 3, 2, 8, dtype=torch.float64)
    turned = {}
    for reverse in (False, True):
        cos_sin = Rotary(RopeConfig(100.0, 8, reverse=reverse), 16)(Span(0, 3), x)
        turned[reverse] = rotate(x, cos_sin)
    theta = torch.outer(torch.arange(3.0), 100.0 ** (-torch.arange(0, 8, 2) / 8))[None, :, None]
    a, b = x[..., :4], x[..., 4:]

    def both(sign: float) -> Tensor:
        cos, sin = theta.cos(), sign * theta.sin()
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    torch.testing.assert_close(turned[False], both(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(turned[True], both(-1), rtol=0, atol=1e-6)


def test_meta_device_leaves_a_usable_table() -> None:
    with torch.device("meta"):
        rotary = Rotary(RopeConfig(100.0, 8), 16)
    assert rotary(Span(0, 2), torch.zeros(0, device="cpu"))[0].device.type == "cpu"
    assert rope_module.FIRST_TABLE >= 16
