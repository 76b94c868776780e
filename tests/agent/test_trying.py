"""A trial opened in the background: used, discarded, or failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from agentcli.agent.trying import PendingTrial, Trial, trial
from agentcli.environments.base import Nowhere
from agentcli.environments.copies import copied
from agentcli.environments.host import HostEnvironment
from agentcli.environments.warm import WarmEnvironment
from agentcli.messages import ToolCall
from agentcli.questions import asked as question
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from tests.running import pytest_ini

CHECK = ToolCall("c", "run_tests", "{}")
TRIAL = Trial(CHECK, 1, CHECK, [], Registry([]), ToolContext(Nowhere()))


@asynccontextmanager
async def opened(seen: list[str], fails: str = "") -> AsyncIterator[Trial]:
    seen.append("opened")
    if fails == "opening":
        raise OSError("no room")
    if fails == "never":
        await asyncio.Event().wait()
    try:
        yield TRIAL
    finally:
        seen.append("closed")
        if fails == "closing":
            raise OSError("no room")


async def test_it_is_entered_once_it_is_open() -> None:
    seen: list[str] = []
    async with PendingTrial(opened(seen)) as trial:
        assert trial is TRIAL and seen == ["opened"]
    assert seen == ["opened", "closed"]


async def test_it_is_opened_in_advance_and_closed_if_unused() -> None:
    seen: list[str] = []
    pending = PendingTrial(opened(seen))
    await asyncio.sleep(0)
    assert seen == ["opened"]
    await pending.aclose()
    assert seen == ["opened", "closed"]


@pytest.mark.parametrize("fails", ["opening", "closing"])
async def test_an_error_reaches_only_the_code_that_enters(fails: str) -> None:
    with pytest.raises(OSError, match="no room"):
        async with PendingTrial(opened([], fails)):
            pass
    pending = PendingTrial(opened([], fails))
    await asyncio.sleep(0)
    await pending.aclose()


async def test_whoever_waits_for_it_may_be_cancelled() -> None:
    seen: list[str] = []
    pending = PendingTrial(opened(seen, "never"))
    waiting = asyncio.create_task(pending.__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert seen == ["opened"] and pending._task.cancelled()


async def test_the_user_is_asked_once_for_all_tries_on_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    (tmp_path / "test_a.py").write_text("from a import f\n\n\ndef test():\n    assert f() == 3\n")
    for name, text in pytest_ini().items():
        (tmp_path / name).write_text(text)
    asked: list[str] = []

    async def ask(approval: Approval) -> Reply:
        asked.append(question(approval))
        return Reply(Answer.ONCE)

    tools = Registry(builtin_tools(), permissions=ModePermissions(Mode.ASK, ask))

    def copies() -> AbstractAsyncContextManager[HostEnvironment]:
        return copied(tmp_path, kind=WarmEnvironment)

    async with trial(tools, ToolContext(Nowhere()), copies, CHECK, None) as on:
        for value, left in (("2", 1), ("3", 0)):
            edit = {"path": "a.py", "old": "return 1", "new": f"return {value}"}
            assert await on.left(ToolCall("e", "search_replace", json.dumps(edit))) == left
    assert asked == ["Try edits on a copy of the workspace, with this check?"]
