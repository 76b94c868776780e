"""A session can be resumed from a journal cut after any event, and repeats no tool call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcli.agent.events import (
    MessageAdded,
    ModelAnswered,
    SessionStarted,
    StopReason,
    TaskGiven,
    ToolStarted,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.records import to_record
from agentcli.config import load
from agentcli.messages import FinishReason, Outcome, Role, Usage, assistant, validate_history
from agentcli.session.journal import SCHEMA, Journal, read_events
from agentcli.session.store import journal_path, list_sessions
from agentcli.wiring import open_agent

EXAMPLE = Path(__file__).parents[2] / "examples" / "fix-median"
RECORDED = list(read_events(EXAMPLE / "recording.jsonl"))
TASK_AT = next(
    index
    for index, event in enumerate(RECORDED)
    if isinstance(event, MessageAdded) and event.message.role is Role.USER
)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording with one answer, the final one."""
    path = tmp_path / "last.jsonl"
    answer = ModelAnswered(1, assistant("Done."), FinishReason.STOP, Usage(1, 0, 0, 1), 0.0, 0.0)
    path.write_text(json.dumps({"v": SCHEMA, "n": 0, "t": 0, **to_record(answer)}) + "\n")
    return path


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    yield


async def cut(workspace: Path, length: int) -> str:
    """Write a journal of ``length`` events, as a killed process leaves it."""
    journal = Journal(journal_path("cut"))
    for event in RECORDED[:length]:
        if isinstance(event, SessionStarted):
            event = SessionStarted(
                "cut", str(workspace), event.model, event.mode, event.sandbox, (), event.version
            )
        if isinstance(event, TaskGiven):
            event = TaskGiven(event.text, ("true",))
        await journal.append(event)
    journal.close()
    return "cut"


@pytest.mark.parametrize("length", range(TASK_AT, len(RECORDED)))
async def test_any_cut(length: int, workspace: Path, recording: Path) -> None:
    session = await cut(workspace, length)
    assert list_sessions()[0].condition == "interrupted"
    before = fold_all(RECORDED[:length])
    async with open_agent(
        load(workspace),
        workspace=workspace,
        model=f"replay:{recording}",
        session_id=session,
    ) as agent:
        result = await agent.start("").result()
    assert (result.state.stop, result.state.answer) == (StopReason.FINAL, "Done.")

    events = list(read_events(journal_path(session)))
    history = list(fold_all(events).history)
    validate_history(history)
    told = [message.text for message in history if message.role is Role.USER]
    assert told[0] == result.state.task
    assert told.count(result.state.task) == 1
    # No tool ran again; the model is told that the effect of started calls is unknown.
    assert not any(isinstance(event, ToolStarted) for event in events[length:])
    unknown = {call.id for call in before.unresolved if call.id in before.started}
    outcomes = {
        message.result.call_id: message.result
        for message in history
        if not message.text and message.role is Role.TOOL
    }
    for call_id in unknown:
        assert outcomes[call_id].outcome is Outcome.CANCELLED
