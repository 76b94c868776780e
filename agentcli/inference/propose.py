"""Best-first search for alternative answers to one prompt, roughly from the likeliest down.

Greedy decoding gives the first answer. Every other answer branches off from an earlier one: at one
position it takes another likely token, then continues greedily. The likeliest open branch is
followed next. All answers share one KV cache, so that each costs only the tokens after its branch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agentcli.inference.constrain import Constraint
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import GREEDY
from agentcli.inference.speculate import Lookup
from agentcli.inference.variants import HEAD_WEIGHT, Edit, Variants
from agentcli.model.kv_cache import KVCache

ALTERNATIVES = 6
"""Likeliest tokens considered at each position."""
FREE_COST = 3.0
"""Initial cost, as a negative log probability, of edits that the model finds without a hint."""
PATIENCE = 1500
"""Tokens and steps without an answer after which the search ends. An untrained model finds all
answers equally unlikely and would search for ever."""


@dataclass(frozen=True)
class Proposal:
    """An answer; ``logprob`` is its weighted log probability per token."""

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
    """Yield complete answers until there are no more, none is found for long, or ``cancelled()``.

    Args:
        engine: The engine that decodes.
        prompt: The tokens before the answer.
        constraint: The grammar of an answer, before its first token.
        cache: The KV cache to work in.
        opening: Tokens that every answer begins with.
        closing: Tokens that end the calls found by ``Variants``.
        varying: Maps an argument of a call to the argument that it is a variant of. What precedes
            such an argument is searched as described above, the argument itself by ``Variants``.
        places: More edits to consider, each with its initial cost (0 is the best).
        max_tokens: The limit of each generation.
        cancelled: Ends the search when it returns True.
    """
    sampling = replace(GREEDY, logprobs=ALTERNATIVES)
    marks = tuple((f'"{name}": "', source) for name, source in (varying or {}).items())
    variants = Variants(engine, [*prompt, *opening], closing, cache)
    for edit, cost in places:
        variants.add(edit, cost)
    initial = FREE_COST if places else 0.0
    # (negative log probability, order of arrival, tokens): up to and including the branch
    branches: list[tuple[float, int, list[int]]] = [(initial, 0, list(opening))]
    arrived = fruitless = 0
    while (branches or variants) and fruitless < PATIENCE and not cancelled():
        fruitless += 1
        if not branches or variants.best > -branches[0][0]:
            if (variant := variants.advance()) is not None:
                fruitless = 0
                tokens = [*opening, *variant.tokens]
                yield Proposal(tokens, variant.logprob / len(tokens))
            continue
        cost, _, prefix = heapq.heappop(branches)
        state = _after(constraint, prefix)
        if state is None or len(prompt) + len(prefix) > engine.model.config.sequence_len:
            continue
        generation = engine.generate(
            [*prompt, *prefix],
            max_tokens=max_tokens,
            sampling=sampling,
            constraint=state,
            lookup=Lookup(),
            cache=cache,
            cancelled=cancelled,
        )
        (row,) = generation.rows
        opened: Edit | None = None
        for _ in generation:
            text = engine.tokenizer.decode([*prefix[len(opening) :], *row.generated])
            opened = _opened(text, marks)
            if opened is not None:
                generation.close()
                break
        generated, total = row.generated, -cost
        fruitless += len(generated)
        for at, (logprob, likely) in enumerate(row.logprobs):
            for token, other in likely:
                if token != generated[at]:
                    arrived += 1
                    branch = [*prefix, *generated[:at], token]
                    heapq.heappush(branches, (-(total + other), arrived, branch))
            total += logprob * (HEAD_WEIGHT if varying else 1.0)
        if opened is not None:
            variants.add(opened, initial)
        elif row.finish == "stop":
            tokens = [*prefix, *generated]
            fruitless = 0
            yield Proposal(tokens, total / len(tokens))


def _opened(text: str, marks: Sequence[tuple[str, str]]) -> Edit | None:
    """Return the edit whose varying string ``text`` has just opened, if any."""
    for mark, source in marks:
        at = text.find(mark)
        if at >= 0:
            return Edit.of(text[: at + len(mark)], source)
    return None


def _after(constraint: Constraint, prefix: Sequence[int]) -> Constraint | None:
    """Return the constraint's state after ``prefix``; None if it forbids the last token."""
    after = constraint.fork()
    for token in prefix[:-1]:
        after.accept(token)
    if prefix:
        allowed = after.allowed()
        if allowed is not None and not allowed[prefix[-1]]:
            return None
        after.accept(prefix[-1])
    return after
