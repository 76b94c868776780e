"""The state is the fold of the events, and is immutable."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    Event,
    MessageAdded,
    ModelAnswered,
    Phase,
    PhaseChanged,
    RetryScheduled,
    Rewound,
    RunFinished,
    Stage,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    WorkspaceChanged,
)
from agentcli.agent.folding import fold, fold_all
from agentcli.agent.state import STATUS_OF, AgentState, History, exit_code
from agentcli.messages import (
    FinishReason,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    user,
    validate_history,
)

A, B = ToolCall("a", "write_file"), ToolCall("b", "grep")


def answered(*calls: ToolCall, tokens: int = 10) -> ModelAnswered:
    reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    return ModelAnswered(1, assistant("ok", *calls), reason, Usage(tokens, 0, 0, 1), 0.1, 0.2)


def test_results_join_the_history_in_the_order_of_the_calls() -> None:
    state = fold_all(
        [
            MessageAdded(user("go")),
            StepStarted(1),
            answered(A, B),
            ToolStarted(1, A, "edit"),
            ToolStarted(1, B, "search"),
            ToolFinished(1, ToolResult("b", "grep", "second", paths=("y.py",))),
        ]
    )
    assert [call.id for call in state.unresolved] == ["a"]
    assert len(state.history) == 2
    state = fold(state, ToolFinished(1, ToolResult("a", "write_file", "first", paths=("x.py",))))
    assert [message.result.content for message in state.history.since(2)] == ["first", "second"]
    assert state.unresolved == () and state.pending == ()
    assert state.files_changed == ("x.py",)
    validate_history(tuple(state.history))


def test_steps_and_retries_are_counted_apart_and_kept_in_the_record() -> None:
    state = fold_all(
        [
            StepStarted(1),
            RetryScheduled(1, Stage.DECIDE, 1, 0.1, "503"),
            AnswerRejected(1, "empty", Usage(5, 0, 0, 0)),
            answered(tokens=7),
            PhaseChanged(1, Phase.EXPLORE, Phase.DISCOVER),
            StepFinished(1, 0.5),
        ]
    )
    assert (state.step, state.retries, state.rejected) == (1, 1, 0)
    assert state.usage == Usage(12, 0, 0, 1)
    record = state.records[0]
    assert (record.step, record.retries, record.phase) == (1, 1, Phase.DISCOVER)
    assert record.usage == state.usage


def test_a_new_check_result_replaces_the_old_one_of_the_same_command() -> None:
    state = fold_all(
        [
            CheckFinished("make", False, 2, ""),
            CheckFinished("pytest", True, 0, ""),
            CheckFinished("make", True, 0, ""),
        ]
    )
    assert [(c.command, c.passed) for c in state.check_results] == [
        ("pytest", True),
        ("make", True),
    ]


def test_folding_leaves_the_earlier_state_alone() -> None:
    events: list[Event] = [MessageAdded(user(str(n))) for n in range(5)]
    states = [AgentState()]
    for event in events:
        states.append(fold(states[-1], event))
    for count, state in enumerate(states):
        assert [message.text for message in state.history] == [str(n) for n in range(count)]


def test_going_on_from_an_old_state_does_not_disturb_the_newer_one() -> None:
    old = fold(AgentState(), MessageAdded(user("one")))
    newer = fold(old, MessageAdded(user("two")))
    other = fold(old, MessageAdded(user("three")))
    assert [m.text for m in newer.history] == ["one", "two"]
    assert [m.text for m in other.history] == ["one", "three"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers()), max_size=40))
def test_histories_behave_like_tuples(operations: list[tuple[int, int]]) -> None:
    histories: list[History[int]] = [History()]
    models: list[tuple[int, ...]] = [()]
    for choice, item in operations:
        place = choice % len(histories)
        histories.append(histories[place].append(item))
        models.append((*models[place], item))
    for history, model in zip(histories, models, strict=True):
        assert tuple(history) == model
        assert len(history) == len(model)
        assert history.since(1) == list(model[1:])
        if model:
            assert history[-1] == model[-1] and history[0] == model[0]
        with pytest.raises(IndexError):
            history[len(model)]


EXITS = {
    "final": 0,
    "success": 0,
    "agent_condition": 0,
    "env_terminal": 0,
    "critic_stop": 1,
    "stagnation": 1,
    "declined": 1,
    "tries_used_up": 1,
    "budget_steps": 1,
    "budget_time": 1,
    "budget_tokens": 1,
    "budget_cost": 1,
    "budget_tools": 1,
    "task_validation_failed": 2,
    "provider_failed": 3,
    "env_capability_mismatch": 4,
    "unrecoverable_error": 5,
    "cancelled": 130,
}


def test_every_stop_reason_has_the_exit_code_of_the_table() -> None:
    assert {r.value: exit_code(r, STATUS_OF[r]) for r in StopReason} == EXITS
    assert exit_code(StopReason.FINAL, Status.UNSOLVED) == 1


def test_the_end_is_kept() -> None:
    state = fold(AgentState(), RunFinished(StopReason.FINAL, Status.SOLVED, "done", "", 0))
    assert state.finished and state.answer == "done" and state.status is Status.SOLVED


def test_a_file_that_is_again_as_before_the_task_is_not_changed() -> None:
    there, other = {"a.py": "file 644 0a"}, {"a.py": "file 644 0b"}
    state = fold(fold(AgentState(), TaskGiven("fix it", ())), WorkspaceChanged(1, there, other))
    assert state.files_changed == ("a.py",)
    made = fold(state, WorkspaceChanged(2, {}, {"b.py": "file 644 0c", "d": "dir 755"}))
    assert made.files_changed == ("a.py", "b.py")
    back = fold(made, WorkspaceChanged(3, {**other, "b.py": "file 644 0c"}, there))
    assert back.files_changed == ()


def test_a_call_does_not_bring_back_what_it_left_as_before_the_task() -> None:
    there, other = {"a.py": "file 644 0a"}, {"a.py": "file 644 0b"}
    state = fold(fold(AgentState(), TaskGiven("fix it", ())), WorkspaceChanged(1, there, other))
    state = fold(state, ToolStarted(2, ToolCall("c", "edit", "{}"), "edit"))
    state = fold(state, WorkspaceChanged(2, other, there))
    state = fold(state, ToolFinished(2, ToolResult("c", "edit", "done", paths=("a.py",))))
    assert state.files_changed == ()


@pytest.mark.parametrize("seed", range(20))
def test_what_files_were_before_the_task_is_kept_through_rewinds(seed: int) -> None:
    """The entries carried along are those that all changes of the task, walked again, give."""
    rng = random.Random(seed)
    state = fold(AgentState(), TaskGiven("one", ()))
    for step in range(1, 60):
        chance = rng.random()
        if chance < 0.1:
            state = fold(state, TaskGiven(f"task {step}", ()))
        elif chance < 0.25:
            mark, files, messages = rng.randrange(len(state.marks)), {}, rng.random() < 0.5
            if rng.random() < 0.5:
                files = {"a.py": f"file 644 {step:02x}"}
            state = fold(state, Rewound(mark, files, files, messages=messages))
        else:
            path, was, now = rng.choice("abc") + ".py", rng.randrange(4), rng.randrange(4)
            before = {path: f"file 644 0{was}"} if was else {}
            after = {path: f"file 644 0{now}"} if now else {}
            state = fold(state, WorkspaceChanged(step, before, after, rng.random() < 0.2))
            state = fold(state, StepFinished(step, 0.1))
        began = [mark for mark in state.marks if mark.turn][-1]
        first: dict[str, str | None] = {}
        for change in state.changes.since(len(began.changes)):
            for path in () if change.outside else {*change.before, *change.after}:
                first.setdefault(path, change.before.get(path))
        assert state.at_first == first


def test_a_file_that_a_run_made_as_it_was_in_another_task_is_changed() -> None:
    there, other = {"a.py": "file 644 0a"}, {"a.py": "file 644 0b"}
    state = fold(fold(AgentState(), TaskGiven("one", ())), WorkspaceChanged(1, there, other))
    again = fold(fold(state, TaskGiven("two", ())), WorkspaceChanged(2, other, there))
    assert again.files_changed == ("a.py",)
    outside = fold(
        fold(AgentState(), TaskGiven("one", ())), WorkspaceChanged(1, there, other, True)
    )
    assert fold(outside, WorkspaceChanged(1, other, there)).files_changed == ("a.py",)
