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


def test_nothing_is_known_without_failing_tests() -> None:
    assert likely_places(LinesRun(), {"m.py": TEXT}) == []
    assert likely_places(LinesRun(0, 2, {"m.py": {1: (0, 2)}}), {"m.py": TEXT}) == []
    assert likely_places(LinesRun(1, 0, {"m.py": {99: (1, 0)}}), {"m.py": TEXT}) == []
