"""The text shown for calls, results, diffs and times."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.agent.events import CandidateTried, CheckFinished, ModelChanged, SessionStarted
from agentcli.messages import Image, Outcome, ToolCall, ToolResult, Usage
from agentcli.wording import (
    MAX_DIFF_LINES,
    Folded,
    call_lines,
    candidate_line,
    check_line,
    check_output,
    describe_call,
    diff_lines,
    duration,
    fold_result,
    model_changed,
    session_lines,
    usage_line,
)


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("read_file", '{"path": "a b.py", "start": 3, "limit": null}', "read_file a b.py start=3"),
        ("grep", '{"path": "src", "pattern": "def x"}', "grep src def x"),
        ("shell", '{"command": "ls -l\\n| wc"}', "shell ls -l\\n| wc"),
        ("shell", '{"command": "a  b    #\\tc"}', "shell a  b    #\tc"),
        ("odd", "[" * 5000, "odd " + "[" * 95 + "…"),
        ("odd", '{"x": ' + "[" * 900 + "]" * 900 + "}", "odd x=" + "[" * 93 + "…"),
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


def test_images_of_a_result_are_named() -> None:
    images = (Image(b"1", "image/png", "a.png"), Image(b"2", "image/png", "b\x1b.png"))

    def told(content: str, kind: str, outcome: Outcome = Outcome.OK) -> Folded:
        return fold_result(ToolResult("1", "t", content, outcome, images=images), kind)

    one = "[image a.png: PNG, 2x2, 75 bytes]"
    other = r"[image b\x1b.png]"
    assert told(one, "read") == Folded(one, (other,))
    assert told(f"Two:\n{one}", "read") == Folded("2 lines", ("[image a.png]", other))
    assert told(f"Two:\n{one}", "run") == Folded("Two:", (one, other), tail=True)
    long = f"{one}\n" + "\n".join(map(str, range(9)))
    assert told(long, "run").lines == (*"345678", other)
    assert told("error: x", "run", Outcome.ERROR).lines == ("[image a.png]", other)


def test_a_list_of_tasks_is_shown_as_one() -> None:
    items = [{"text": "Read", "state": "done"}, {"text": "Fix", "state": "pending"}]
    call = ToolCall("1", "todo", json.dumps({"items": items}))
    assert describe_call(call) == "todo"
    made = ToolResult("1", "todo", "[x] Read\n[ ] Fix", Outcome.OK)
    assert fold_result(made, "plan") == Folded("[x] Read", ("[ ] Fix",))


def test_of_output_the_end_is_shown() -> None:
    content = "exit code 1\n" + "\n".join(str(number) for number in range(10)) + "\n\n"
    folded = fold_result(result(content, Outcome.FAILED), "run")
    assert folded == Folded("exit code 1", ("4", "5", "6", "7", "8", "9"), 4, tail=True)


def test_what_the_tool_counted_is_shown() -> None:
    def told(kind: str, **data: object) -> Folded:
        return fold_result(ToolResult("1", "t", "a\nb\nc", data=data), kind)

    assert told("read", lines=30, total_lines=420).headline == "30 of 420 lines"
    assert told("read", lines=30, total_lines=30).headline == "30 lines"
    assert told("search", matches=1, more=False).headline == "1 match"
    assert told("search", matches=200, more=True).headline == "200 matches, and there are more"
    assert told("read", entries=2).headline == "2 entries"
    assert told("run", lines=5000).omitted == 4998


def test_a_command_of_several_lines_is_shown_as_it_is() -> None:
    command = "if x:\n    rm  -r  a\x1b\n" + "\n".join(f"line{n}" for n in range(10))
    call = ToolCall("1", "shell", json.dumps({"command": command, "timeout_s": 5}))
    first, *lines = call_lines(call)
    assert first == "shell timeout_s=5"
    assert lines[:2] == ["    if x:", r"        rm  -r  a\x1b"]
    assert lines[-2:] == ["    line5", "    … 4 more lines"]


def test_long_lines_of_a_diff_are_cut() -> None:
    (line,) = diff_lines("+" + "x\x00" * 1_000_000).lines
    assert len(line) <= 200


def test_another_model_and_a_failed_check() -> None:
    change = ModelChanged(1, "b:2", "no\ncredit")
    assert model_changed("a:1", change) == "model a:1 failed: no credit; continuing with b:2"
    output = "".join(f"{n}\n\n" for n in range(9))
    assert check_output(CheckFinished("c", False, 1, output)) == [f"  {n}" for n in range(3, 9)]
    assert check_output(CheckFinished("c", True, 0, output)) == []


def test_of_an_error_the_beginning_is_shown() -> None:
    folded = fold_result(result("error: a\nb\nc\nd\ne\nf\ng", Outcome.ERROR), "read")
    assert folded == Folded("error: a", ("b", "c", "d", "e"), 2)


def test_an_empty_result_has_a_headline_all_the_same() -> None:
    assert fold_result(result(""), "run") == Folded("")


def test_a_diff_of_several_files_names_them_and_hides_no_line() -> None:
    one = "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1 @@\n--- old\n same\n"
    assert diff_lines(one).lines == ("@@ -1,2 +1 @@", "--- old", " same")
    gone = "--- a/y\n+++ /dev/null\n@@ -1 +0,0 @@\n-y\n"
    new = "--- /dev/null\n+++ b/d/z\n"
    hunks = ("x.sql", "@@ -1,2 +1 @@", "--- old", " same", "y", "@@ -1 +0,0 @@", "-y", "d/z")
    assert diff_lines(one + gone + new).lines == hunks
    assert diff_lines(new).lines == ()


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
    assert usage_line(Usage()) == "no tokens reported"
    assert usage_line(Usage(5, 3, 0, 6)) == "5 tokens in (3 cached), 6 out"
    assert check_line(CheckFinished("a\x1b", False, 2, "")) == r"check failed (exit code 2): a\x1b"
    assert check_line(CheckFinished("a", True, 0, "")) == "check passed: a"


@pytest.mark.parametrize(
    ("failures", "came"),
    [
        (0, "all tests pass"),
        (1, "1 test fails"),
        (3, "3 tests fail"),
        (None, "breaks more than tests"),
    ],
)
def test_what_became_of_a_candidate(failures: int | None, came: str) -> None:
    call = ToolCall("1", "search_replace", '{"path": "a.py", "old": "a", "new": "b"}')
    told = candidate_line(CandidateTried(2, call, failures, 0.5))
    assert told == f"tried on a copy: a.py: b: {came}"


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a = 1\n    b = 2", "a = 1\n    b = 3", "b = 3"),
        ("a = 1\n    b = 2\n", "a = 1\n", "without b = 2"),
        ("a\nb", "b\na", "b / a"),
        ("a", "a\n\n  b\n  c\x1b", r"b / c\x1b"),
    ],
)
def test_a_candidate_is_shown_by_the_lines_it_makes(old: str, new: str, shown: str) -> None:
    arguments = json.dumps({"path": "a.py", "old": old, "new": new})
    call = ToolCall("1", "search_replace", arguments)
    told = candidate_line(CandidateTried(2, call, 0, 0.5))
    assert told == f"tried on a copy: a.py: {shown}: all tests pass"


def test_a_candidate_of_another_tool_is_shown_like_any_call() -> None:
    call = ToolCall("1", "apply_patch", "{")
    told = candidate_line(CandidateTried(2, call, 0, 0.5))
    assert told == "tried on a copy: apply_patch {: all tests pass"


def test_the_embedded_model_says_at_once_what_it_is_for() -> None:
    def begins(model: str) -> str:
        session = SessionStarted("s", "/w", model, "auto", "full", (), "0.1.0")
        return "\n".join(session_lines(session))

    assert "ANTHROPIC_API_KEY" in begins("embedded")
    assert "ANTHROPIC_API_KEY" not in begins("openai:m")
