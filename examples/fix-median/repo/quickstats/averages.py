"""Where the middle of a sample lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; ValueError for an empty sample."""
    if not values:
        raise ValueError("mean of an empty sample")
    return sum(values) / len(values)


def median(values: Sequence[float]) -> float:
    """The value in the middle of the sorted sample; ValueError for an empty sample."""
    if not values:
        raise ValueError("median of an empty sample")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle]


def mode(values: Sequence[float]) -> float:
    """The most frequent value, the smallest of them if there are several."""
    if not values:
        raise ValueError("mode of an empty sample")
    counts = Counter(values)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)
