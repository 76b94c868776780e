"""The account of a run's edits, with files that edits and others change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcli.agent.edit_calls import EditCalls
from agentcli.agent.run_edits import RunEdits
from agentcli.environments.host import HostEnvironment
from agentcli.messages import ToolCall, ToolResult
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry

TOOLS = Registry(builtin_tools())


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[ToolContext]:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    environment = HostEnvironment(tmp_path)
    await environment.start()
    yield ToolContext(environment)
    await environment.aclose()


def account(context: ToolContext) -> RunEdits:
    return RunEdits(context.environment, EditCalls(TOOLS))


def replacing(old: str, new: str) -> ToolCall:
    return ToolCall(old, "search_replace", json.dumps({"path": "a.py", "old": old, "new": new}))


async def made(context: ToolContext, edits: RunEdits, *calls: ToolCall) -> None:
    done: list[tuple[ToolCall, ToolResult]] = []
    for call in calls:
        await edits.announce(call)
        done.append((call, await TOOLS.dispatch(call, context)))
        await edits.note(done)


async def test_several_edits_of_a_file_are_undone_together(
    context: ToolContext, tmp_path: Path
) -> None:
    edits, calls = account(context), [replacing("one", "1"), replacing("two", "2")]
    await made(context, edits, *calls)
    assert (tmp_path / "a.py").read_text() == "1\n2\n"
    assert all(edits.is_known(call) and not edits.is_found(call) for call in calls)
    assert await edits.undo() == []
    assert (tmp_path / "a.py").read_text() == "one\ntwo\n"


async def test_an_edit_that_a_search_found_is_undone_with_the_file_it_created(
    context: ToolContext, tmp_path: Path
) -> None:
    edits = account(context)
    call = ToolCall("c", "write_file", json.dumps({"path": "new.py", "content": "x"}))
    await edits.find(call, {"new.py": b"x"})
    assert edits.any_found and edits.is_found(call) and edits.is_known(call)
    (tmp_path / "new.py").write_text("x")
    assert await edits.undo() == [] and not (tmp_path / "new.py").exists()


async def test_what_others_changed_meanwhile_is_left_and_named(
    context: ToolContext, tmp_path: Path
) -> None:
    edits = account(context)
    await made(context, edits, replacing("one", "1"))
    (tmp_path / "a.py").write_text("1\nmine\n")
    assert await edits.undo() == ["a.py"]
    assert (tmp_path / "a.py").read_text() == "1\nmine\n"


async def test_a_file_that_something_else_changed_with_the_edit_is_not_noted(
    context: ToolContext, tmp_path: Path
) -> None:
    edits, call = account(context), replacing("one", "1")
    await edits.announce(call)
    result = await TOOLS.dispatch(call, context)
    (tmp_path / "a.py").write_text("1\nmine\n")
    await edits.note([(call, result)])
    assert not edits.is_known(call)
    assert await edits.undo() == [] and (tmp_path / "a.py").read_text() == "1\nmine\n"


async def test_nothing_is_undone_after_the_account_is_cleared(
    context: ToolContext, tmp_path: Path
) -> None:
    edits, call = account(context), replacing("one", "1")
    await made(context, edits, call)
    edits.clear()
    assert not edits.is_known(call) and await edits.undo() == []
    assert (tmp_path / "a.py").read_text() == "1\ntwo\n"
