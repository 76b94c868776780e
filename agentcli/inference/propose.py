"""Several answers to one prompt, about the likeliest first.

The likeliest token at every place gives the first answer. Every other answer leaves one already
given at one place, by the token that was next in likelihood there, and goes on greedily; the
likeliest such turning is taken next. All share one cache: an answer costs what follows its turning.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agentcli.inference.constrain import Constraint
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.inference.speculate import Lookup
from agentcli.model.kv_cache import KVCache

TURNINGS = 6
"""Tokens that are looked at in each place."""


@dataclass(frozen=True)
class Proposal:
    """An answer; ``logprob`` is the mean of its tokens'."""

    tokens: list[int]
    logprob: float


def propose(
    engine: Engine,
    prompt: Sequence[int],
    constraint: Constraint,
    cache: KVCache,
    *,
    opening: Sequence[int] = (),
    max_tokens: int,
    cancelled: Callable[[], bool] = bool,
) -> Iterator[Proposal]:
    """Whole answers that begin with ``opening``, until there is no other or the caller stops."""
    sampling = replace(GREEDY, logprobs=TURNINGS)
    # (minus the log probability up to the turning, order of arrival, tokens up to it)
    waiting: list[tuple[float, int, list[int]]] = [(0.0, 0, list(opening))]
    seen = 0
    while waiting and not cancelled():
        cost, _, prefix = heapq.heappop(waiting)
        follow = _after(constraint, prefix)
        if follow is None:
            continue
        generation = engine.generate(
            [*prompt, *prefix],
            max_tokens=max_tokens,
            sampling=sampling,
            constraint=follow,
            lookup=Lookup(),
            cache=cache,
            cancelled=cancelled,
        )
        for _ in generation:
            pass
        (row,) = generation.rows
        said, total = row.generated, -cost
        for at, (logprob, likely) in enumerate(row.logprobs):
            for token, other in likely:
                if token != said[at]:
                    seen += 1
                    heapq.heappush(waiting, (-(total + other), seen, [*prefix, *said[:at], token]))
            total += logprob
        if row.finish == "stop":
            tokens = [*prefix, *said]
            yield Proposal(tokens, total / len(tokens))


def _after(constraint: Constraint, prefix: Sequence[int]) -> Constraint | None:
    """The constraint after a prefix whose last token may break it: then None."""
    after = constraint.fork()
    for token in prefix[:-1]:
        after.accept(token)
    if prefix:
        allowed = after.allowed()
        if allowed is not None and not allowed[prefix[-1]]:
            return None
        after.accept(prefix[-1])
    return after
