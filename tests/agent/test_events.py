"""Every durable event survives a round trip through its journal form."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from agentcli.agent import records
from agentcli.agent.events import (
    AnswerRejected,
    BranchTaken,
    CandidateTried,
    CheckFinished,
    Compacted,
    CompactionUndone,
    Decided,
    Delta,
    Event,
    MemoryLog,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    Phase,
    PhaseChanged,
    PrefixBroken,
    PreflightIssue,
    Recovered,
    Replaced,
    RetryScheduled,
    Reviewed,
    Rewound,
    RunFinished,
    SessionStarted,
    SoftCapReached,
    Stage,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
    WindowLearnt,
    WorkspaceChanged,
    WorkspaceTaken,
)
from agentcli.agent.folding import fold
from agentcli.agent.records import from_record, kind, to_record
from agentcli.agent.state import AgentState
from agentcli.llm.client import TextDelta
from agentcli.messages import (
    FinishReason,
    Image,
    Message,
    Outcome,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    user,
)

CALL = ToolCall("call_1", "read_file", '{"path": "a.py"}')
RESULT = ToolResult(
    "call_1", "read_file", "1\tx = 1", Outcome.OK, "--- a\n+++ b\n", ("a.py",), {"exit_code": 0}
)
DURABLE: list[Event] = [
    SessionStarted("s1", "/w", "openai:m", "auto", "full", ("shell@1", "grep@2"), "0.1.0"),
    TaskGiven("fix it", ("pytest -q",), {"max_steps": 5}),
    MessageAdded(Message(Role.USER, (Text("see"), Image(b"\x89PNG", "image/png", "a.png")))),
    StepStarted(1),
    ModelAnswered(
        1,
        Message(Role.ASSISTANT, (Thinking("hm", "sig", "blob"), Text("ok"), CALL)),
        FinishReason.TOOL_CALLS,
        Usage(10, 4, 1, 5, 2),
        0.25,
        1.5,
    ),
    AnswerRejected(1, "empty", Usage(1, 0, 0, 1, 0)),
    RetryScheduled(1, Stage.DECIDE, 1, 0.5, "too many requests"),
    ModeChanged("plan"),
    PreflightIssue("TASK_OBJECTIVE_INVALID", "the task says nothing"),
    Decided(1, assistant("by myself")),
    BranchTaken(1, 1, (0.25, 0.5)),
    Reviewed(1, "ChecksPass", "retry", "a check fails"),
    Recovered(1, Stage.DECIDE, "ValueError('x')", 1, 3),
    ModelChanged(1, "ollama:q", "unreachable"),
    ToolStarted(1, CALL, "read"),
    ToolFinished(1, RESULT, 0.125),
    ToolFinished(1, replace(RESULT, images=(Image(b"\x89PNG", "image/png", "a.png"),)), 0.125),
    PhaseChanged(1, Phase.EXPLORE, Phase.EDIT),
    CandidateTried(1, CALL, 2, 0.5),
    CandidateTried(1, ToolCall("c1", "edit", '{"path": "a"}'), 2, 0.5),
    CandidateTried(1, ToolCall("c1", "edit"), None, 0.5),
    WorkspaceTaken("0a" * 20, ("build/", "\udcff.log")),
    WorkspaceChanged(1, {"a.py": "file 644 0a"}, {"a.py": "file 755 0b", "\udcff": "dir 755"}),
    Rewound(3, {"a.py": "file 644 0b"}, {}, False, True),
    StepFinished(1, 2.0),
    CheckFinished("pytest -q", False, 1, "1 failed"),
    Warned("hook failed"),
    Compacted(
        3, "near the limit", 900, 400, ("summarize",), (Replaced(1, 4, user("x")), Replaced(5, 7))
    ),
    CompactionUndone(3),
    WindowLearnt(4, 3600),
    PrefixBroken(4, "compaction", 500),
    SoftCapReached(4, "tool_calls", 40, 40),
    ModelUsed(4, "summary", Usage(10, 0, 0, 5, 0), 0.01),
    RunFinished(StopReason.FINAL, Status.SOLVED, "done", "", 0),
]


def test_the_list_above_is_complete() -> None:
    durable = {cls for cls in records._KINDS.values() if cls.durable}
    assert {type(event) for event in DURABLE} == durable


def test_results_recorded_before_they_could_have_images() -> None:
    old = to_record(ToolFinished(1, RESULT, 0.125))
    assert "images" not in old["result"]
    assert from_record(old) == ToolFinished(1, RESULT, 0.125)


@pytest.mark.parametrize("images", [5, ["x"], [{"kind": "image"}]])
def test_damaged_images_of_a_result(images: object) -> None:
    record = to_record(ToolFinished(1, RESULT, 0.125))
    record["result"]["images"] = images
    with pytest.raises(ValueError, match="not an event"):
        from_record(record)


@pytest.mark.parametrize("event", DURABLE, ids=kind)
def test_round_trip_through_json(event: Event) -> None:
    assert from_record(json.loads(json.dumps(to_record(event)))) == event


@pytest.mark.parametrize("event", DURABLE, ids=kind)
def test_a_record_without_a_field_is_refused_unless_it_has_a_default(event: Event) -> None:
    for field in fields(event):
        record = to_record(event)
        del record[field.name]
        if field.default is MISSING and field.default_factory is MISSING:
            with pytest.raises(ValueError, match="not an event"):
                from_record(record)
        else:
            from_record(record)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + 301 * "0"])
def test_an_impossible_duration_is_refused(number: str) -> None:
    record = json.loads(f'{{"kind": "step_finished", "step": 1, "duration_s": {number}}}')
    with pytest.raises(ValueError, match="duration_s of step_finished has a wrong type"):
        from_record(record)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="moon_landing is an event that this version"):
        from_record({"kind": "moon_landing"})


def test_transient_events_can_be_shown_as_json() -> None:
    assert to_record(Delta(2, TextDelta("hi"))) == {
        "kind": "delta",
        "step": 2,
        "delta": {"kind": "TextDelta", "text": "hi"},
    }
    assert json.dumps(to_record(ToolProgress("c", "stdout", b"\xff ok")))


def test_kinds_are_snake_case_and_distinct() -> None:
    kinds = [kind(event) for event in DURABLE]
    assert kinds[:2] == ["session_started", "task_given"]
    assert all(name == name.lower() for name in records._KINDS)


async def test_memory_log_keeps_what_it_is_given() -> None:
    log = MemoryLog()
    await log.append(MessageAdded(user("hi")))
    await log.append(MessageAdded(assistant("yes")), sync=True)
    assert [event.message.text for event in log.events if isinstance(event, MessageAdded)] == [
        "hi",
        "yes",
    ]


def test_the_time_of_a_command_excludes_waiting_for_approval() -> None:
    command = ToolResult("c1", "shell", "exit code 0", data={"duration_s": 0.25})
    assert ToolFinished(1, command, 9.0).command_s == 0.25
    fetched = ToolResult("c2", "fetch", "text", data={"asked_s": 8.0})
    assert ToolFinished(1, fetched, 9.0).command_s == 1.0


@pytest.mark.parametrize("told", ["soon", None, [], -1, float("inf"), float("nan")])
def test_malformed_data_from_a_tool_is_ignored(told: Any) -> None:
    data = {"duration_s": told, "asked_s": told, "plan": told, "stop": [told]}
    finished = ToolFinished(1, ToolResult("c1", "theirs", "text", data=data), 2.0)
    assert (finished.command_s, finished.asked_s) == (2.0, 0.0)
    assert fold(AgentState(), finished).plan == ()
