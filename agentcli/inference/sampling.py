"""Sampling: logits in, a token out. Pure functions; the order is that of ``adjust``.

Logits are float32 (B, V). Randomness enters only as numbers in [0, 1) that the caller draws, one
per row and step: a row's tokens then depend on the seed alone, not on what other rows do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentcli.errors import ModelError

# So many tokens mostly have a share of 0.9 and more among them.
LIKELIEST = 64


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises ModelError for values outside their range.

    ``temperature`` 0 takes the likeliest token. ``top_k`` None or 0, ``top_p`` 1 and ``min_p`` 0
    keep all; a top_k above the vocabulary means all. ``repetition_penalty`` divides positive and
    multiplies negative logits of tokens that occurred (CTRL, arXiv:1909.05858). ``logit_bias``
    is added. ``logprobs`` asks for the log probabilities of that many likeliest tokens.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        checks = {
            "temperature": math.isfinite(self.temperature) and self.temperature >= 0,
            "top_k": self.top_k is None or self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": math.isfinite(self.repetition_penalty)
            and self.repetition_penalty > 0,
            "logprobs": self.logprobs is None or self.logprobs >= 0,
        }
        for name, good in checks.items():
            if not good:
                raise ModelError(f"{name} {getattr(self, name)} is out of range")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def needs_history(self) -> bool:
        return self.repetition_penalty != 1


GREEDY = Sampling(temperature=0.0)


def choose(logits: Tensor, sampling: Sampling, draws: Sequence[float]) -> list[int]:
    """One token per row of logits (B, V) that are adjusted and masked already.

    Raises ModelError if no token of a row is possible.
    """
    best = logits.amax(-1)
    if sampling.greedy:
        return _read(logits.argmax(-1), best)
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        # Work on the k likeliest alone: they come sorted, and the rest has no share.
        kept = logits.topk(sampling.top_k, -1)
        place = _draw(_probabilities(kept.values, sampling), draws)
        return _read(kept.indices.gather(1, place[:, None])[:, 0], best)
    return _read(_draw(_probabilities(logits, sampling), draws), best)


def adjust(logits: Tensor, sampling: Sampling, history: Sequence[Sequence[int]]) -> Tensor:
    """Repetition penalty, then bias; ``history`` are the tokens of each row."""
    if sampling.needs_history:
        logits = repetition_penalty(logits, history, sampling.repetition_penalty)
    if sampling.logit_bias:
        logits = logit_bias(logits, sampling.logit_bias)
    return logits


def repetition_penalty(logits: Tensor, history: Sequence[Sequence[int]], penalty: float) -> Tensor:
    logits = logits.clone()
    for row, tokens in zip(logits, history, strict=True):
        seen = torch.tensor(sorted(set(tokens)), dtype=torch.long, device=logits.device)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def logit_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Raises ModelError for a token outside the vocabulary."""
    vocab = logits.shape[-1]
    if outside := [token for token in bias if not 0 <= token < vocab]:
        raise ModelError(f"logit bias for token {outside[0]}, the vocabulary has {vocab}")
    logits = logits.clone()
    index = torch.tensor(list(bias), dtype=torch.long, device=logits.device)
    values = torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device)
    logits[:, index] += values
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Everything below the k-th likeliest becomes impossible."""
    threshold = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """The fewest likeliest tokens whose shares reach p (Holtzman et al., arXiv:1904.09751)."""
    vocab = probabilities.shape[-1]
    count = min(LIKELIEST, vocab)
    while True:  # to sort a large vocabulary would take longer than the rest of the step
        likely = probabilities.topk(count, -1)
        reached = likely.values.cumsum(-1)
        if count == vocab or bool((reached[:, -1] >= p).all()):
            break
        count = min(8 * count, vocab)
    kept = likely.values.masked_fill(reached - likely.values >= p, 0)
    return torch.zeros_like(probabilities).scatter(-1, likely.indices, kept)


def keep_min_p(probabilities: Tensor, min_p: float) -> Tensor:
    """Tokens at least min_p times as likely as the likeliest (arXiv:2407.01082)."""
    floor = min_p * probabilities.amax(-1, keepdim=True)
    return probabilities.masked_fill(probabilities < floor, 0)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities that ``choose`` draws from, (B, V); for checks and for speculation."""
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    kept = _probabilities(logits, sampling)
    return kept / kept.sum(-1, keepdim=True)


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Log probability of ``token`` and the ``count`` likeliest, from the model's logits (V,)."""
    logs = logits.log_softmax(-1)
    best = logs.topk(min(count, logs.shape[-1]))
    pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return float(logs[token]), pairs


def _probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Shares after temperature and cuts; they need not sum to one."""
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        probabilities = keep_top_p(probabilities, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = keep_min_p(probabilities, sampling.min_p)
    return probabilities


def _draw(shares: Tensor, draws: Sequence[float]) -> Tensor:
    """Inverse of the cumulative distribution: a token without share cannot be hit."""
    edges = shares.cumsum(-1, dtype=torch.float64)
    total = edges[:, -1:]
    points = torch.tensor(draws, dtype=torch.float64, device=shares.device)[:, None] * total
    # A product that rounds up to the total would lie behind the last token.
    points = torch.minimum(points, torch.nextafter(total, torch.zeros_like(total)))
    places = torch.searchsorted(edges, points, right=True)[:, 0]
    return places.clamp(max=shares.shape[-1] - 1)  # NaN only; ``_read`` refuses it


def _read(tokens: Tensor, best: Tensor) -> list[int]:
    """Tokens to the host, in one transfer with the check of the best logits."""
    possible = best > -torch.inf  # False for NaN, too
    pairs = torch.where(possible, tokens, -1).tolist()
    if min(pairs) < 0:
        raise ModelError("no token is possible: the logits are NaN or all masked")
    chosen: list[int] = pairs
    return chosen
