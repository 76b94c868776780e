"""Words for calls, results, diffs and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.agent.events import CheckFinished
from agentcli.cli.wording import (
    MAX_DIFF_LINES,
    Folded,
    check_line,
    describe_call,
    diff_lines,
    duration,
    fold_result,
    usage_line,
)
from agentcli.messages import Outcome, ToolCall, ToolResult, Usage


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("read_file", '{"path": "a b.py", "start": 3, "limit": null}', "read_file a b.py start=3"),
        ("grep", '{"path": "src", "pattern": "def x"}', "grep src def x"),
        ("shell", '{"command": "ls -l\\n| wc"}', "shell ls -l | wc"),
        ("write_file", '{"path": "a", "content": "long\\n"}', "write_file a"),
        ("run_tests", "", "run_tests"),
        ("run_tests", '{"path": "a', 'run_tests {"path": "a'),
        ("odd", "[1]", "odd [1]"),
        ("odd", '{"path": 3, "on": true}', "odd 3 on=true"),
        ("odd", '{"path": "\\u001b[2J"}', r"odd \x1b[2J"),
    ],
)
def test_a_call_in_one_line(name: str, arguments: str, shown: str) -> None:
    assert describe_call(ToolCall("1", name, arguments)) == shown


@given(st.text(), st.text(), st.integers(min_value=10, max_value=200))
def test_any_call_is_one_short_printable_line(name: str, arguments: str, width: int) -> None:
    line = describe_call(ToolCall("1", name, arguments), width)
    assert "\n" not in line and "\x1b" not in line
    assert len(line) <= width


def result(content: str, outcome: Outcome = Outcome.OK) -> ToolResult:
    return ToolResult("1", "tool", content, outcome)


def test_what_was_read_is_only_counted() -> None:
    assert fold_result(result("1\ta\n2\tb"), "read") == Folded("2 lines")
    assert fold_result(result("no match for x"), "search") == Folded("no match for x")


def test_of_output_the_end_is_shown() -> None:
    content = "exit code 1\n" + "\n".join(str(number) for number in range(10)) + "\n\n"
    folded = fold_result(result(content, Outcome.FAILED), "run")
    assert folded == Folded("exit code 1", ("4", "5", "6", "7", "8", "9"), 4)


def test_of_an_error_the_beginning_is_shown() -> None:
    folded = fold_result(result("error: a\nb\nc\nd\ne\nf\ng", Outcome.ERROR), "read")
    assert folded == Folded("error: a", ("b", "c", "d", "e"), 2)


def test_an_empty_result_has_a_headline_all_the_same() -> None:
    assert fold_result(result(""), "run") == Folded("")


def test_a_long_diff_is_cut() -> None:
    folded = diff_lines("--- a\n+++ b\n@@ -1 +1 @@\n" + "+x\n" * 100)
    assert folded.lines[:2] == ("@@ -1 +1 @@", "+x")
    assert len(folded.lines) == MAX_DIFF_LINES
    assert folded.omitted == 101 - MAX_DIFF_LINES


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7440, "2 h 4 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_tokens_and_checks() -> None:
    assert usage_line(Usage(12345, 0, 0, 6)) == "12,345 tokens in, 6 out"
    assert usage_line(Usage(5, 3, 0, 6)) == "5 tokens in (3 cached), 6 out"
    assert check_line(CheckFinished("a\x1b", False, 2, "")) == r"check failed (exit code 2): a\x1b"
    assert check_line(CheckFinished("a", True, 0, "")) == "check passed: a"
