"""What a tool call reveals about the edit that it will make."""

from __future__ import annotations

import json

import pytest

from agentcli.agent.edit_calls import EditCalls, is_guarded
from agentcli.messages import ToolCall
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry


@pytest.mark.parametrize(
    ("arguments", "size", "paths"),
    [
        (json.dumps({"path": "a.py", "old": "a - 1", "new": "a"}), 2, ("a.py",)),
        (json.dumps({"path": 3, "old": "a"}), 2, ()),
        ("[]", 0, ()),
        ("{", 0, ()),
    ],
)
def test_calls(arguments: str, size: int, paths: tuple[str, ...]) -> None:
    calls = EditCalls(Registry(builtin_tools()))
    call = ToolCall("c", "search_replace", arguments)
    assert calls.paths(call) == paths
    if paths:
        assert calls.size(call) == size
    assert calls.size(ToolCall("c", "write_file", json.dumps({"path": "a", "content": "b"}))) == 0
    assert calls.size(ToolCall("c", "unknown", arguments)) == 0


def test_tests_and_their_configuration_are_guarded() -> None:
    guarded = ["tests/a.py", "test_a.py", "pkg/test/b.py", "a_test.go", "pyproject.toml", "tox.ini"]
    guarded += ["tests.py", "shop/test.py", "pytest.ini", ".pytest.ini", "pytest.toml"]
    assert all(map(is_guarded, guarded))
    assert not any(
        map(is_guarded, ["a.py", "pkg/contest.py", "latest.py", "testing.md", "contests.py"])
    )
