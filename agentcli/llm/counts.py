"""Checks the token counts that servers report."""

from __future__ import annotations

from agentcli.llm.client import UsageDelta
from agentcli.messages import Usage

MOST = 100_000_000
"""Upper limit of plausible counts, far above any model's window."""


def reported_usage(
    *,
    prompt: object,
    cached: object = 0,
    cache_written: object = 0,
    output: object = 0,
    reasoning: object = 0,
) -> UsageDelta:
    """The usage of one request from a server's counts; None counts as 0.

    If one count is impossible, none is trusted: a budget would end a run too early, or never.
    A part that exceeds its whole is reduced to it.
    """
    counts = {
        "input": prompt,
        "cached": cached,
        "cache write": cache_written,
        "output": output,
        "reasoning": reasoning,
    }
    numbers = {name: 0 if value is None else _number(value) for name, value in counts.items()}
    for name, number in numbers.items():
        if number is None:
            shown = repr(counts[name])
            return UsageDelta(Usage(), f"{name} tokens: {shown[:40]}{'...' * (len(shown) > 40)}")
    given, read, written, answer, thinking = (number or 0 for number in numbers.values())
    return UsageDelta(
        Usage(given, min(read, given), min(written, given), answer, min(thinking, answer))
    )


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        return None
    return int(value)
