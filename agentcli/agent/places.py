"""Locates faults: lines that ran mostly in failing tests.

Each line is scored by Ochiai's coefficient (Abreu, Zoeteweij, van Gemund 2006): the square root of
the share of failing tests that ran it times the share of failing tests among those that ran it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from agentcli.environments.base import LinesRun
from agentcli.llm.client import EditPlace

MOST = 60
"""The most places returned; the likeliest are kept."""
LONGEST = 6
"""The most lines of a place: a line that occurs more than once is extended until it is unique."""
SHARPNESS = 3.0
"""How much a line's weight counts relative to the model's own likelihoods."""


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
    for path, number in ordered:
        old = _alone(texts[path], number)
        if old is not None and (path, old) not in places:
            cost = SHARPNESS * math.log(weights[ordered[0]] / weights[path, number])
            places[path, old] = EditPlace(path, old, cost)
    return list(places.values())


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
