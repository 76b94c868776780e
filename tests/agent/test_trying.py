"""A trial opened in the background: used, discarded, or failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agentcli.agent.trying import PendingTrial, Trial
from agentcli.environments.base import Nowhere
from agentcli.messages import ToolCall
from agentcli.tools.base import ToolContext
from agentcli.tools.registry import Registry

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
