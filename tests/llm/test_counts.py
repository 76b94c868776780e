"""Which counts of tokens are believed."""

import math

import pytest

from agentcli.llm.counts import MOST, told
from agentcli.messages import Usage


def test_counts() -> None:
    delta = told(given=100, cached=60, kept=10, made=20, thought=8.0)
    assert (delta.usage, delta.doubt) == (Usage(100, 60, 10, 20, 8), "")


def test_what_is_missing_is_none() -> None:
    assert told(given=5, cached=None, made=None).usage == Usage(5)


def test_a_part_is_no_more_than_its_whole() -> None:
    assert told(given=5, cached=9, made=2, thought=3).usage == Usage(5, 5, 0, 2, 2)


ABSURD = [-1, MOST + 1, 10**30, math.nan, math.inf, -math.inf, "5", True, [1], {"a": 1}]


@pytest.mark.parametrize("count", ABSURD, ids=repr)
@pytest.mark.parametrize("name", ["given", "cached", "kept", "made", "thought"])
def test_one_that_cannot_be_spoils_all(name: str, count: object) -> None:
    counts: dict[str, object] = {"given": 10, "made": 10, name: count}
    delta = told(**counts)
    assert delta.usage == Usage() and repr(count) in delta.doubt
