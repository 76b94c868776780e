"""Locates faults: lines that ran mostly in failing tests.

Each line is scored by Ochiai's coefficient (Abreu, Zoeteweij, van Gemund 2006): the square root of
the share of failing tests that ran it times the share of failing tests among those that ran it.
Its rank counts, too: one line that stands alone at the top says more than twenty that share it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from agentcli.environments.base import LinesRun
from agentcli.llm.client import EditPlace

MOST = 60
"""The most places returned; the likeliest are kept."""
LONGEST = 6
"""The most lines of a place: a line that occurs more than once is extended until it is unique."""
SHARPNESS = 3.0
"""How much the logarithm of a line's weight counts relative to the model's own likelihoods."""
RANKED = 1.0
"""How much the logarithm of a line's rank counts, as if the n-th line were to blame in 1 of n
cases. Lines of equal weight share the mean of their ranks."""


def likely_places(lines: LinesRun, texts: Mapping[str, str]) -> list[EditPlace]:
    """Places in the files of ``texts``, the likeliest first; empty if no test failed."""
    weights = {
        (path, number): failed / math.sqrt(lines.failed * (failed + passed))
        for path, ran in lines.ran.items()
        if path in texts
        for number, (failed, passed) in ran.items()
        if failed
    }
    ordered = sorted(weights, key=lambda line: (-weights[line], line))[:MOST]
    places: dict[tuple[str, str], EditPlace] = {}
    values = list(weights.values())
    ranks = {weight: _rank(weight, values) for weight in set(values)}
    best = max(values, default=0.0)
    for path, number in ordered:
        old = _alone(texts[path], number)
        if old is not None and (path, old) not in places:
            weight = weights[path, number]
            cost = SHARPNESS * math.log(best / weight)
            cost += RANKED * math.log(ranks[weight] / ranks[best])
            places[path, old] = EditPlace(path, old, cost)
    return list(places.values())


def _rank(value: float, values: Collection[float]) -> float:
    """The rank of ``value``, the mean one among equals; 1 for the greatest."""
    greater = sum(other > value for other in values)
    return greater + (sum(other == value for other in values) + 1) / 2


def _alone(text: str, number: int) -> str | None:
    """Line ``number`` (from 1), extended until it is unique; None if that takes too many lines."""
    lines = text.split("\n")
    first = last = number - 1
    if not 0 <= first < len(lines) or not lines[first].strip():
        return None
    for _ in range(LONGEST):
        old = "\n".join(lines[first : last + 1])
        if text.count(old) == 1:
            return old
        follows = last + 1 < len(lines) and lines[last + 1].strip()
        if first == 0 or (follows and last - number < number - 1 - first):
            last = min(last + 1, len(lines) - 1)
        else:
            first -= 1
    return None
