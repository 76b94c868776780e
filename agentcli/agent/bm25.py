"""Ranks texts by their relevance to a query: Okapi BM25 over words and their parts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*|\d+|[^\W\d_a-zA-Z]")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def terms(text: str) -> list[str]:
    """Words in lower case; ``parseConfig`` and ``parse_config`` also yield their parts."""
    found: list[str] = []
    for word in _WORD.findall(text):
        whole = word.lower()
        found.append(whole)
        pieces = _PIECE.findall(word)
        if len(pieces) > 1:
            found += [piece.lower() for piece in pieces]
    return found


class Index:
    """Searchable texts. Adding one takes time proportional to its length."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._counts: list[Counter[str]] = []
        self._lengths: list[int] = []
        self._holding: dict[str, list[int]] = {}
        self._total = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, text: str) -> None:
        """Add a text. Texts are numbered from 0."""
        found = terms(text)
        counts = Counter(found)
        for term in counts:
            self._holding.setdefault(term, []).append(len(self._counts))
        self._counts.append(counts)
        self._lengths.append(len(found))
        self._total += len(found)

    def scores(self, question: str) -> list[float]:
        """The relevance of each text to the question; 0 if they share no word."""
        scores = [0.0] * len(self._counts)
        if not self._total:
            return scores
        average = self._total / len(self._counts)
        for term in dict.fromkeys(terms(question)):
            holding = self._holding.get(term, ())
            rarity = math.log(1 + (len(scores) - len(holding) + 0.5) / (len(holding) + 0.5))
            for number in holding:
                count = self._counts[number][term]
                norm = 1 - _B + _B * self._lengths[number] / average
                scores[number] += rarity * count * (_K1 + 1) / (count + _K1 * norm)
        return scores
