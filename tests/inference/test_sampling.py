"""Sampling functions match their definitions, and ``choose`` matches its distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.inference.sampling import (
    GREEDY,
    Sampling,
    adjust,
    choose,
    distribution,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    top_logprobs,
)


def logits(rows: int = 1, vocab: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": -1},
     {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 2.0},
     {"repetition_penalty": 0.0}, {"logprobs": -1}, {"temperature": []}, {"top_k": "x"},
     {"top_k": 2.5}, {"repetition_penalty": 10**400}],
)  # fmt: skip
def test_out_of_range(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    with pytest.raises(ModelError, match=f"{name} .* is out of range"):
        Sampling(**settings)


def test_the_lowest_temperatures_are_greedy() -> None:
    logits = torch.tensor([[1.0, 30.0, 2.0, -5.0]])
    for temperature in (1e-29, 1e-38, 1e-45):
        assert choose(logits, Sampling(temperature=temperature), [0.9]) == [1]


def test_greedy_takes_the_likeliest() -> None:
    values = logits(5)
    assert choose(values, GREEDY, [0.9] * 5) == values.argmax(-1).tolist()


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.5), Sampling(top_k=4), Sampling(top_k=0),
     Sampling(top_k=1000), Sampling(top_p=0.7), Sampling(min_p=0.2),
     Sampling(temperature=1.5, top_k=6, top_p=0.8, min_p=0.05)],
)  # fmt: skip
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    """Evenly spaced draws choose each token exactly in proportion to its probability."""
    values = logits()
    count = 20_000
    draws = [(i + 0.5) / count for i in range(count)]
    tokens = torch.tensor(choose(values.expand(count, -1), sampling, draws))
    shares = torch.bincount(tokens, minlength=12) / count
    expected = distribution(values, sampling)[0]
    torch.testing.assert_close(shares, expected, rtol=0, atol=2 / count)


def test_cuts() -> None:
    p = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
    assert keep_top_p(p, 0.75)[0].tolist() == pytest.approx([0.5, 0.25, 0, 0])
    assert keep_top_p(p, 0.76)[0, 2] > 0
    assert keep_top_p(p, 0.01).count_nonzero() == 1
    assert keep_min_p(p, 0.3).count_nonzero() == 3
    assert (keep_top_k(p.log(), 2) > -math.inf).tolist() == [[True, True, False, False]]
    assert (keep_top_k(p.log(), 99) > -math.inf).all()


@pytest.mark.parametrize("spread", [12.0, 2.0, 0.1, 0.0])  # from peaked to uniform
def test_top_p_of_a_large_vocabulary_is_that_of_all_in_order(spread: float) -> None:
    shares = (torch.randn(3, 7000, generator=torch.Generator().manual_seed(1)) * spread).softmax(-1)
    for p in (0.1, 0.9, 0.999, 1 - 1e-7):
        kept = keep_top_p(shares, p)
        ordered = shares.sort(-1, descending=True).values
        before = ordered.cumsum(-1) - ordered
        wanted = ordered.masked_fill(before >= p, 0)
        assert torch.equal(kept.sort(-1, descending=True).values, wanted)
        assert ((kept == 0) | (kept == shares)).all()


def test_nothing_is_drawn_that_is_cut() -> None:
    values = logits()
    values[0, :3] = -math.inf
    for sampling in (Sampling(), Sampling(top_k=5), Sampling(top_p=0.5)):
        for draw in (0.0, 0.5, 1 - 2**-53):
            token = choose(values, sampling, [draw])[0]
            assert distribution(values, sampling)[0, token] > 0


def test_repetition_penalty_and_bias() -> None:
    values = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    sampling = Sampling(repetition_penalty=2.0, logit_bias={2: 0.5})
    out = adjust(values, sampling, [[0, 1, 1], []])
    assert out.tolist() == [[1.0, -4.0, 1.5], [2.0, -2.0, 1.5]]
    assert values[0, 0] == 2.0  # the input is unchanged
    with pytest.raises(ModelError, match="bias for token 3"):
        adjust(values, Sampling(logit_bias={3: 1.0}), [[], []])


def test_a_sequence_bias_counts_only_after_its_first_tokens() -> None:
    values = torch.zeros(4, 3)
    sampling = Sampling(sequence_bias=[([7, 8, 2], 1.5), ([0], -1.0)])
    out = adjust(values, sampling, [[7, 8], [9, 7, 8], [7, 8, 9], [8]])
    assert out.tolist() == [[-1, 0, 1.5], [-1, 0, 1.5], [-1, 0, 0], [-1, 0, 0]]
    assert not values.any()  # the input is unchanged
    with pytest.raises(ModelError, match="bias for token 3"):
        adjust(values, Sampling(sequence_bias=[([7, 3], 1.0)]), [[], [], [], []])


def test_impossible_logits_are_an_error() -> None:
    for value in (-math.inf, math.nan):
        for sampling in (GREEDY, Sampling(), Sampling(top_k=2)):
            with pytest.raises(ModelError, match="no token is possible"):
                choose(torch.full((1, 4), value), sampling, [0.5])


def test_logprobs() -> None:
    values = logits()[0]
    own, best = top_logprobs(values, 3, 5)
    exact = values.log_softmax(-1)
    assert own == pytest.approx(float(exact[3]))
    assert [token for token, _ in best] == exact.topk(5).indices.tolist()


def test_defaults() -> None:
    sampling = Sampling()
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (1.0, None, 42)
