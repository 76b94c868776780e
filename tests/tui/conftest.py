"""Fixtures for a chat: a home folder, and chats with a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server import Script, ScriptedServer
from tests.tui.chatting import Chat, chatting

Start = Callable[..., AbstractAsyncContextManager[Chat]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("DATA", "CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"AGENTCLI_{name}_DIR", str(folder / name.lower()))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return folder


@pytest.fixture
def chat(workspace: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Opens chats: ``async with chat([Reply(...)], mode="auto") as one``."""

    @asynccontextmanager
    async def start(
        script: Script = (), *, repeat: bool = False, **options: Any
    ) -> AsyncIterator[Chat]:
        with ScriptedServer(script, repeat=repeat) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            async with chatting(workspace, home, **options) as one:
                yield one
            assert server.faults == []

    return start
