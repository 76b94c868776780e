"""Which calls of one answer wait for each other."""

from __future__ import annotations

import pytest

from agentcli.agent.acting import access, must_wait
from agentcli.messages import ToolCall
from agentcli.tools.base import ToolKind, ToolSpec

SPECS = {
    "read": ToolSpec("read", "", {}, ToolKind.READ, path_arguments=("path",)),
    "search": ToolSpec("search", "", {}, ToolKind.SEARCH),
    "edit": ToolSpec("edit", "", {}, ToolKind.EDIT, path_arguments=("path",)),
    "check": ToolSpec("check", "", {}, ToolKind.CHECK),
    "run": ToolSpec("run", "", {}, ToolKind.RUN),
    "plan": ToolSpec("plan", "", {}, ToolKind.PLAN),
}


def waits(first: str, second: str) -> bool:
    accesses = []
    for word in (first, second):
        name, _, path = word.partition(":")
        call = ToolCall("x", name, f'{{"path": "{path}"}}' if path else "{}")
        accesses.append(access(call, SPECS.get(name), "/work"))
    return must_wait(*accesses)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("read:a", "read:a", False),
        ("read:a", "search", False),
        ("edit:a", "edit:b", False),
        ("edit:a", "edit:a", True),
        ("edit:./a", "edit:a", True),
        ("edit:x/../a", "edit:/work/a", True),
        ("edit:../a", "edit:a", False),
        ("edit:a", "read:a", True),
        ("edit:a", "read:b", False),
        ("read:a", "edit:a", True),
        ("edit:a", "search", True),
        ("edit:a", "check", True),
        ("check", "edit:a", True),
        ("check", "check", True),
        ("check", "read:a", False),
        ("run", "read:a", True),
        ("read:a", "run", True),
        ("run", "run", True),
        ("plan", "run", False),
        ("unknown", "edit:a", False),
        ("edit", "edit:a", True),
    ],
)
def test_order(first: str, second: str, expected: bool) -> None:
    assert waits(first, second) is expected
