"""Fuzzy matching of paths and names, fast enough to scan many thousands at every key."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

_SEPARATORS = "/_-. "


def score(query: str, text: str) -> float:
    """How well ``text`` matches the lower-case ``query``; 0 is no match, higher is better.

    All characters of the query must occur in order. Contiguous matches score highest, above all
    in the last part of a path and at the start of a word.
    """
    if not query:
        return 1.0
    lowered = text.lower()
    name = lowered.rfind("/") + 1
    at = lowered.find(query, name)
    if at >= 0:
        starts = at == name or lowered[at - 1] in _SEPARATORS
        return 300.0 + 100.0 * starts + 50.0 * (at == name) - len(text) / 100
    at = lowered.find(query)
    if at >= 0:
        return 200.0 + 50.0 * (at == 0 or lowered[at - 1] in _SEPARATORS) - len(text) / 100
    found, position, previous = 1.0, -1, -2
    for character in query:
        position = lowered.find(character, position + 1)
        if position < 0:
            return 0.0
        if position == previous + 1:
            found += 3.0
        elif position == 0 or lowered[position - 1] in _SEPARATORS:
            found += 2.0
        previous = position
    return found + max(0.0, 1.0 - len(text) / 200)


def best(query: str, texts: Iterable[str], limit: int) -> list[str]:
    """The best matches, best first; ties go to the shorter, then the earlier text."""
    query = query.lower()
    scored = ((score(query, text), -len(text), text) for text in texts)
    found = heapq.nlargest(limit, (item for item in scored if item[0] > 0), key=lambda i: i[:2])
    return [text for _, _, text in found]
