"""Which token counts from providers are trusted."""

import math

import pytest

from agentcli.llm.counts import MOST, reported_usage
from agentcli.messages import Usage


def test_counts() -> None:
    delta = reported_usage(prompt=100, cached=60, cache_written=10, output=20, reasoning=8.0)
    assert (delta.usage, delta.doubt) == (Usage(100, 60, 10, 20, 8), "")


def test_what_is_missing_is_none() -> None:
    assert reported_usage(prompt=5, cached=None, output=None).usage == Usage(5)


def test_a_part_is_no_more_than_its_whole() -> None:
    assert reported_usage(prompt=5, cached=9, output=2, reasoning=3).usage == Usage(5, 5, 0, 2, 2)


ABSURD = [-1, MOST + 1, 10**30, math.nan, math.inf, -math.inf, "5", True, [1], {"a": 1}]


@pytest.mark.parametrize("count", ABSURD, ids=repr)
@pytest.mark.parametrize("name", ["prompt", "cached", "cache_written", "output", "reasoning"])
def test_an_impossible_count_discredits_the_others(name: str, count: object) -> None:
    counts: dict[str, object] = {"prompt": 10, "output": 10, name: count}
    delta = reported_usage(**counts)
    assert delta.usage == Usage() and repr(count) in delta.doubt
