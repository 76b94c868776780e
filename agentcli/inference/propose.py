"""Several answers to one prompt, about the likeliest first.

The likeliest token at every place gives the first answer. Every other answer leaves one already
given at one place, by the token that was next in likelihood there, and goes on greedily; the
likeliest such turning is taken next. All share one cache: an answer costs what follows its turning.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agentcli.inference.constrain import Constraint
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.inference.speculate import Lookup
from agentcli.inference.variants import PLACE, Edit, Variants
from agentcli.model.kv_cache import KVCache

TURNINGS = 6
"""Tokens that are looked at in each place."""
ELSEWHERE = 3.0
"""What a place costs that is not among the given ones."""
BARREN = 1500
"""Tokens and steps after which it ends where they gave no answer: a model that knows nothing finds
everything equally unlikely, and would seek for ever."""


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
    closing: Sequence[int] = (),
    varying: Mapping[str, str] | None = None,
    places: Sequence[tuple[Edit, float]] = (),
    max_tokens: int,
    cancelled: Callable[[], bool] = bool,
) -> Iterator[Proposal]:
    """Whole answers that begin with ``opening``, until there is no other, none is found for long,
    or the caller stops.

    ``varying`` maps an argument of a call to the one that it is a variant of: then what comes
    before it is sought as above, and it itself as in ``variants.py``. ``places`` are edits that
    are looked at beside those, each with what it costs from the start (0: the best).
    """
    sampling = replace(GREEDY, logprobs=TURNINGS)
    marks = tuple((f'"{name}": "', source) for name, source in (varying or {}).items())
    variants = Variants(engine, [*prompt, *opening], closing, cache)
    for edit, cost in places:
        variants.add(edit, cost)
    # (minus the log probability up to the turning, order of arrival, tokens up to it)
    waiting: list[tuple[float, int, list[int]]] = [(ELSEWHERE if places else 0.0, 0, list(opening))]
    seen = barren = 0
    while (waiting or variants) and barren < BARREN and not cancelled():
        barren += 1
        if not waiting or variants.best > -waiting[0][0]:
            if (variant := variants.advance()) is not None:
                barren = 0
                tokens = [*opening, *variant.tokens]
                yield Proposal(tokens, variant.logprob / len(tokens))
            continue
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
        (row,) = generation.rows
        begun: Edit | None = None
        for _ in generation:
            text = engine.tokenizer.decode([*prefix[len(opening) :], *row.generated])
            begun = _opened(text, marks)
            if begun is not None:
                generation.close()
                break
        said, total = row.generated, -cost
        barren += len(said)
        for at, (logprob, likely) in enumerate(row.logprobs):
            for token, other in likely:
                if token != said[at]:
                    seen += 1
                    heapq.heappush(waiting, (-(total + other), seen, [*prefix, *said[:at], token]))
            total += logprob * (PLACE if varying else 1.0)
        if begun is not None:
            variants.add(begun, ELSEWHERE if places else 0.0)
        elif row.finish == "stop":
            tokens = [*prefix, *said]
            barren = 0
            yield Proposal(tokens, total / len(tokens))


def _opened(text: str, marks: Sequence[tuple[str, str]]) -> Edit | None:
    """The edit whose varying string has been opened."""
    for mark, source in marks:
        at = text.find(mark)
        if at >= 0:
            return Edit.of(text[: at + len(mark)], source)
    return None


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
