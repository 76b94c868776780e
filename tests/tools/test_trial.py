"""Calls that run on a copy of the workspace before the user allows them."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.environments.copies import in_place
from agentcli.errors import SandboxError
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolContext
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from tests.tools.conftest import TOOLS


@pytest.fixture
def trying(context: ToolContext, workspace: Path) -> ToolContext:
    """A tool context that can copy the workspace."""
    if context.environment.level == "none":
        pytest.skip("no sandbox here")
    return replace(context, copies=functools.partial(in_place, workspace))


async def asked(
    context: ToolContext, command: str, *answers: Answer, between: object = None
) -> tuple[ToolResult, list[Approval]]:
    """Run a command; return its result and the questions asked about it."""
    questions: list[Approval] = []

    async def ask(approval: Approval) -> Reply:
        questions.append(approval)
        if len(questions) == 2 and callable(between):
            between()
        return Reply(answers[len(questions) - 1])

    registry = Registry(TOOLS, ModePermissions(Mode.ASK, ask))
    call = ToolCall("1", "shell", json.dumps({"command": command}))
    return await registry.dispatch(call, context), questions


async def test_what_it_did_on_the_copy_is_brought_over(
    trying: ToolContext, workspace: Path
) -> None:
    (workspace / "a").write_text("one\n")
    command = f"echo run >> log; sed -i s/one/two/ {workspace}/a; cat a; exit 3"
    result, (first, second) = await asked(trying, command, Answer.COPY, Answer.ONCE)
    assert first.can_copy and first.effect is None
    assert second.effect is not None and "-one\n+two\n" in second.effect
    assert second.output == result.content == "exit code 3\ntwo"
    assert result.outcome is Outcome.FAILED and result.paths == ("a", "log")
    assert (workspace / "a").read_text() == "two\n"
    assert (workspace / "log").read_text() == "run\n", "it ran once"


async def test_dropped(trying: ToolContext, workspace: Path) -> None:
    result, (_, second) = await asked(trying, "touch a", Answer.COPY, Answer.NO)
    assert second.effect and not second.can_copy
    assert result.content == "denied: the user said no" and list(workspace.iterdir()) == []


async def test_a_workspace_that_has_changed_meanwhile(trying: ToolContext, workspace: Path) -> None:
    (workspace / "a").write_text("one\n")
    (workspace / "b").write_text("one\n")

    def edit() -> None:
        (workspace / "b").write_text("mine\n")

    command = "echo two | tee a > b"
    result, _ = await asked(trying, command, Answer.COPY, Answer.ONCE, between=edit)
    assert result.outcome is Outcome.ERROR and result.data["code"] == "CONFLICT"
    assert "changed in the workspace since the copy was made: b;" in result.content
    assert (workspace / "a").read_text() == "one\n" and (workspace / "b").read_text() == "mine\n"


async def test_where_no_copy_can_be_made(context: ToolContext, workspace: Path) -> None:
    @asynccontextmanager
    async def copies() -> AsyncIterator[None]:
        raise SandboxError("the workspace is too large")
        yield

    trying = replace(context, copies=copies)  # type: ignore[arg-type]
    result, (_, second) = await asked(trying, "touch a", Answer.COPY, Answer.ONCE)
    assert second.output == "it cannot be run on a copy: the workspace is too large"
    assert second.effect is None and not second.can_copy
    assert result.outcome is Outcome.OK and (workspace / "a").exists()


async def test_edits_of_a_copy_that_is_thrown_away_are_not_asked_about(
    context: ToolContext, workspace: Path
) -> None:
    registry = Registry(TOOLS, ModePermissions(Mode.ASK))
    copy = replace(context, on_copy=True)
    edit = ToolCall("1", "write_file", json.dumps({"path": "a", "content": "x"}))
    command = ToolCall("2", "shell", json.dumps({"command": "touch b"}))
    assert (await registry.dispatch(edit, copy)).outcome is Outcome.OK
    assert (await registry.dispatch(edit, context)).outcome is Outcome.DENIED
    assert (await registry.dispatch(command, copy)).outcome is Outcome.DENIED
