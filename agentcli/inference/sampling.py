"""Sampling: pure functions from logits, float32 (B, V), to tokens.

``adjust`` comes first, then the grammar mask, then ``choose``. The caller draws the random numbers,
one in [0, 1) per row and step, so that a row's tokens depend on the seed but not on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agentcli.errors import ModelError

# This many tokens usually have 0.9 or more of the probability between them.
LIKELIEST = 64
# Logits divided by a lower temperature may overflow float32.
COLDEST = 1e-30


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keeps the k likeliest tokens; None, 0 or more than the vocabulary keeps all.
        top_p: Keeps the fewest tokens whose probabilities add up to this; 1 keeps all.
        min_p: Keeps tokens at least this many times as likely as the likeliest; 0 keeps all.
        repetition_penalty: Divides the positive and multiplies the negative logits of tokens that
            have occurred (CTRL, arXiv:1909.05858).
        logit_bias: Added to the logits, by token.
        sequence_bias: Pairs (tokens, bias): added to the logit of the last token where the others
            precede it, as in ``generation_config.json``.
        logprobs: Return the log probabilities of this many likeliest tokens with each token.
        seed: Seeds the random numbers.

    Raises:
        ModelError: a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    sequence_bias: Sequence[tuple[Sequence[int], float]] = ()
    logprobs: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        checks: dict[str, Callable[[Any], bool]] = {
            "temperature": lambda value: math.isfinite(value) and value >= 0,
            "top_k": lambda value: value is None or (isinstance(value, int) and value >= 0),
            "top_p": lambda value: 0 < value <= 1,
            "min_p": lambda value: 0 <= value <= 1,
            "repetition_penalty": lambda value: math.isfinite(value) and value > 0,
            "logprobs": lambda value: value is None or value >= 0,
        }
        for name, is_good in checks.items():
            value, good = getattr(self, name), False
            with suppress(TypeError, OverflowError):  # a model's own settings may be anything
                good = is_good(value)
            if not good:
                raise ModelError(f"{name} {value!r} is out of range")

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST

    @property
    def adjusts(self) -> bool:
        """Whether ``adjust`` does anything."""
        return bool(self.repetition_penalty != 1 or self.logit_bias or self.sequence_bias)


GREEDY = Sampling(temperature=0.0)


def choose(logits: Tensor, sampling: Sampling, draws: Sequence[float]) -> list[int]:
    """Choose one token per row of logits (B, V) that are already adjusted and masked.

    Args:
        logits: The logits, (B, V).
        sampling: How to choose.
        draws: A random number in [0, 1) per row; ignored if greedy.

    Raises:
        ModelError: a row has no possible token.
    """
    if sampling.greedy:
        return possible(likeliest(logits).tolist())
    best = logits.amax(-1)
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        # Work on the k likeliest alone; all others have probability 0.
        kept = logits.topk(sampling.top_k, -1)
        place = _draw(_probabilities(kept.values, sampling), draws)
        return _to_host(kept.indices.gather(1, place[:, None])[:, 0], best)
    return _to_host(_draw(_probabilities(logits, sampling), draws), best)


def adjust(logits: Tensor, sampling: Sampling, history: Sequence[Sequence[int]]) -> Tensor:
    """Apply the repetition penalty, then the biases; ``history`` has each row's tokens."""
    if sampling.repetition_penalty != 1:
        logits = repetition_penalty(logits, history, sampling.repetition_penalty)
    if sampling.logit_bias:
        logits = logit_bias(logits, sampling.logit_bias)
    for tokens, bias in sampling.sequence_bias:
        logits = sequence_bias(logits, history, tokens, bias)
    return logits


def repetition_penalty(logits: Tensor, history: Sequence[Sequence[int]], penalty: float) -> Tensor:
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        seen = torch.tensor(sorted(set(tokens)), dtype=torch.long, device=logits.device)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def logit_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add a bias to the logits of some tokens.

    Raises:
        ModelError: a token is outside the vocabulary.
    """
    _check_bias(logits, bias)
    logits = logits.clone()
    index = torch.tensor(list(bias), dtype=torch.long, device=logits.device)
    values = torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device)
    logits[:, index] += values
    return logits


def sequence_bias(
    logits: Tensor, history: Sequence[Sequence[int]], tokens: Sequence[int], bias: float
) -> Tensor:
    """Add a bias to the logit of the last of ``tokens`` in rows whose history ends with the others.

    Raises:
        ModelError: the last token is outside the vocabulary.
    """
    *before, last = tokens
    _check_bias(logits, [last])
    rows = [
        at for at, past in enumerate(history) if list(past[len(past) - len(before) :]) == before
    ]
    if not rows:
        return logits
    logits = logits.clone()
    logits[rows, last] += bias
    return logits


def _check_bias(logits: Tensor, tokens: Iterable[int]) -> None:
    vocab = logits.shape[-1]
    if outside := [token for token in tokens if not 0 <= token < vocab]:
        raise ModelError(f"logit bias for token {outside[0]}, the vocabulary has {vocab}")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Mask all logits below the k-th largest of their row."""
    threshold = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens whose probabilities reach p (Holtzman et al., arXiv:1904.09751)."""
    vocab = probabilities.shape[-1]
    count = min(LIKELIEST, vocab)
    while True:  # sorting a large vocabulary would take longer than the rest of the step
        likely = probabilities.topk(count, -1)
        reached = likely.values.cumsum(-1)
        if count == vocab or bool((reached[:, -1] >= p).all()):
            break
        count = min(8 * count, vocab)
    kept = likely.values.masked_fill(reached - likely.values >= p, 0)
    return torch.zeros_like(probabilities).scatter(-1, likely.indices, kept)


def keep_min_p(probabilities: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least ``min_p`` times as likely as the likeliest (arXiv:2407.01082)."""
    floor = min_p * probabilities.amax(-1, keepdim=True)
    return probabilities.masked_fill(probabilities < floor, 0)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the probabilities (B, V) that ``choose`` draws from."""
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    kept = _probabilities(logits, sampling)
    return kept / kept.sum(-1, keepdim=True)


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of ``token`` and those of the ``count`` likeliest tokens.

    ``logits`` (V,) are the model's own, before any adjustment.
    """
    logs = logits.log_softmax(-1)
    best = logs.topk(min(count, logs.shape[-1]))
    pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return float(logs[token]), pairs


def _probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return probabilities after temperature, top-p and min-p; they need not sum to one."""
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        probabilities = keep_top_p(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = keep_min_p(probabilities, sampling.min_p)
    return probabilities


def _draw(weights: Tensor, draws: Sequence[float]) -> Tensor:
    """Sample by inverse transform: a token of weight 0 is never chosen."""
    edges = weights.cumsum(-1, dtype=torch.float64)
    total = edges[:, -1:]
    points = torch.tensor(draws, dtype=torch.float64, device=weights.device)[:, None] * total
    # A product that rounds up to the total would fall past the last token.
    points = torch.minimum(points, torch.nextafter(total, torch.zeros_like(total)))
    places = torch.searchsorted(edges, points, right=True)[:, 0]
    return places.clamp(max=weights.shape[-1] - 1)  # only for NaN, which ``_to_host`` rejects


def _to_host(tokens: Tensor, best: Tensor) -> list[int]:
    """Copy the tokens to the host, checking each row's largest logit in the same transfer."""
    # The comparison is False for NaN, too.
    return possible(torch.where(best > -torch.inf, tokens, -1).tolist())


def likeliest(logits: Tensor) -> Tensor:
    """Return the likeliest token of each row of logits (B, V): (B,), -1 where none is possible."""
    best, tokens = logits.max(-1)
    return torch.where(best > -torch.inf, tokens, -1)


def possible(tokens: list[int]) -> list[int]:
    """Return ``tokens``, of which none may be -1.

    Raises:
        ModelError: one is.
    """
    if min(tokens) < 0:
        raise ModelError("no token is possible: the logits are NaN or all masked")
    return tokens
