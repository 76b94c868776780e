"""The tokens that a server says it has counted, as far as they can be believed."""

from __future__ import annotations

from agentcli.llm.client import UsageDelta
from agentcli.messages import Usage

MOST = 100_000_000
"""Tokens of one call; no model's window comes near."""


def told(
    *, given: object, cached: object = 0, kept: object = 0, made: object = 0, thought: object = 0
) -> UsageDelta:
    """The usage of a call: its prompt, what of that was cached and is kept, its answer.

    None counts as 0. One count that cannot be is reason to believe none of them: a budget would
    end a run for nothing, or never. A part that is more than its whole is taken for all of it.
    """
    counts = {"input": given, "cached": cached, "kept": kept, "output": made, "reasoning": thought}
    numbers = {name: 0 if value is None else _number(value) for name, value in counts.items()}
    for name, number in numbers.items():
        if number is None:
            shown = repr(counts[name])
            return UsageDelta(Usage(), f"{name} tokens: {shown[:40]}{'...' * (len(shown) > 40)}")
    prompt, read, written, answer, thinking = (number or 0 for number in numbers.values())
    return UsageDelta(
        Usage(prompt, min(read, prompt), min(written, prompt), answer, min(thinking, answer))
    )


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        return None
    return int(value)
