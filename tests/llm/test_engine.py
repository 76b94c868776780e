"""The client's end of the engine process: what is cancelled or closed while it works."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

from agentcli.errors import ModelError, ServerError
from agentcli.llm import engine
from agentcli.llm.local import EMBEDDED
from agentcli.sandbox.process import Supervisor
from agentcli.settings import LocalSettings
from tests.llm.thread_engine import ThreadEngine

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def process() -> AsyncIterator[ThreadEngine]:
    process = ThreadEngine(EMBEDDED, LocalSettings(device="cpu", threads=1))
    yield process
    await process.aclose()


async def count(process: ThreadEngine, tokens: int) -> int:
    """The columns of a completion."""
    request = {"tokens": [1, 2, 3], "max_tokens": tokens, "sampling": {"logit_bias": [[5, 99]]}}
    async with aclosing(process.complete(request)) as events:
        return len([event async for event in events if event["event"] == "column"])


async def test_a_start_that_was_cancelled_begins_anew(
    process: ThreadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = asyncio.Event()

    async def slow(supervisor: Supervisor) -> Path | None:
        building.set()
        return await asyncio.Future()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "built_kernels", slow)
        start = asyncio.create_task(process.start())
        await building.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    assert await asyncio.wait_for(count(process, 3), 60) == 3
    assert process.ready["family"] == "nanochat"


async def test_a_process_that_dies_before_it_has_read_the_request() -> None:
    class Dying(ThreadEngine):
        async def _start(self) -> None:
            ours, theirs = socket.socketpair()

            def die() -> None:
                theirs.recv(1, socket.MSG_PEEK)
                theirs.close()  # with bytes that were not read, so it is a reset

            threading.Thread(target=die, daemon=True).start()
            await self._connect(ours)

    with pytest.raises(ServerError, match="ended unexpectedly"):
        await Dying(EMBEDDED, LocalSettings(device="cpu", threads=1)).start()


async def test_closing_ends_the_requests_that_wait(process: ThreadEngine) -> None:
    await process.start()
    request = asyncio.create_task(count(process, 4000))
    await asyncio.sleep(0.1)
    await process.aclose()
    with pytest.raises(ModelError, match="closed"):
        await asyncio.wait_for(request, 60)
