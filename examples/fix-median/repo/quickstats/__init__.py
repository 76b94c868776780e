"""Descriptive statistics for short lists of numbers."""

from quickstats.averages import mean, median, mode
from quickstats.spread import interquartile_range, standard_deviation, variance

__all__ = [
    "interquartile_range",
    "mean",
    "median",
    "mode",
    "standard_deviation",
    "variance",
]
