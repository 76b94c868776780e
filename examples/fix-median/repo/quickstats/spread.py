"""How far a sample spreads around its middle."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quickstats.averages import mean, median


def variance(values: Sequence[float]) -> float:
    """The variance of a sample (divided by n - 1); ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError("variance needs at least two values")
    centre = mean(values)
    return sum((value - centre) ** 2 for value in values) / (len(values) - 1)


def standard_deviation(values: Sequence[float]) -> float:
    """The square root of the variance."""
    return math.sqrt(variance(values))


def interquartile_range(values: Sequence[float]) -> float:
    """The distance between the medians of the upper and the lower half (Tukey's hinges).

    With an odd count the value in the middle belongs to both halves.
    """
    ordered = sorted(values)
    half = (len(ordered) + 1) // 2
    return median(ordered[-half:]) - median(ordered[:half])
