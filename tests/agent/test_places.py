"""Likely places of a fault, from the lines that failing and passing tests ran."""

from __future__ import annotations

from agentcli.agent.places import likely_places
from agentcli.environments.base import LinesRun

TEXT = "def f(x):\n    y = 1\n    return x\n\n\ndef g(x):\n    y = 2\n    return x\n"


def test_lines_of_failing_tests_alone_come_first() -> None:
    ran = {"m.py": {2: (1, 3), 3: (1, 0), 7: (0, 4), 8: (1, 1)}, "other.py": {1: (1, 0)}}
    places = likely_places(LinesRun(1, 5, ran), {"m.py": TEXT})
    # A line that occurs twice is extended by its neighbours until it is unique.
    assert [place.old for place in places] == [
        "    y = 1\n    return x",
        "    y = 2\n    return x",
        "    y = 1",
    ]
    assert places[0].cost == 0 < places[1].cost < places[2].cost
    for place in places:
        assert TEXT.count(place.old) == 1


def test_a_line_alone_at_the_top_says_more_than_one_of_many() -> None:
    text = "".join(f"x{number} = {number}\n" for number in range(9))
    alone = {"m.py": {1: (1, 0), **{line: (1, 3) for line in range(2, 10)}}}
    shared = {"m.py": {9: (1, 3), **{line: (1, 0) for line in range(1, 9)}}}
    ahead = likely_places(LinesRun(1, 3, alone), {"m.py": text})
    among = likely_places(LinesRun(1, 3, shared), {"m.py": text})
    assert ahead[0].old == "x0 = 0" and among[-1].old == "x8 = 8"
    assert [place.cost for place in among[:8]] == [0] * 8
    # The weights of both kinds of lines are the same in the two cases; their numbers are not.
    assert ahead[1].cost > among[-1].cost > 0


def test_nothing_is_known_without_failing_tests() -> None:
    assert likely_places(LinesRun(), {"m.py": TEXT}) == []
    assert likely_places(LinesRun(0, 2, {"m.py": {1: (0, 2)}}), {"m.py": TEXT}) == []
    assert likely_places(LinesRun(1, 0, {"m.py": {99: (1, 0)}}), {"m.py": TEXT}) == []
