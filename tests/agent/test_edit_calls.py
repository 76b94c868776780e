"""What is known of an edit from its call."""

from __future__ import annotations

import json

import pytest

from agentcli.agent.edit_calls import SMALLEST, EditCalls, changed_tokens, is_guarded
from agentcli.messages import ToolCall
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        ("a - 1", "a - 1", 0),
        ("a - 1", "a  -\n1", 0),  # blanks are no tokens
        ("return a - 1", "return a", 2),
        ("return a - 1", "return a + 1", SMALLEST),
        ("return a - 1", "return a if a else 0.0", 8),
        ("f(a, b)", "f(b, a)", 6),  # from the first that differs to the last
        ("a", "a + a", 2),
        ("", "a", 1),
    ],
)
def test_changed_tokens(old: str, new: str, count: int) -> None:
    assert changed_tokens(old, new) == changed_tokens(new, old) == count


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
    assert all(map(is_guarded, guarded))
    assert not any(map(is_guarded, ["a.py", "pkg/contest.py", "latest.py", "testing.md"]))
