"""Whole sessions in their own data folder, with a scripted server, real tools and a journal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.kernel import Agent
from agentcli.agent.run import RunResult
from agentcli.agent.state import AgentState
from agentcli.config import load
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.session.store import load_state
from agentcli.wiring import open_agent
from tests.server import Reply, ScriptedServer


@dataclass
class Sessions:
    """Runs sessions in a shared workspace."""

    workspace: Path
    data: Path

    @asynccontextmanager
    async def agent(self, script: Sequence[Reply], **options: Any) -> AsyncIterator[Agent]:
        """Open an agent whose model plays the script."""
        async with ScriptedServer(list(script)) as server:
            client = OpenAIChat(ModelInfo("scripted", "openai"), "sk-test", server.url)
            settings = options.pop("settings", None) or load(self.workspace)
            options = {"workspace": self.workspace, "model": "openai:scripted", **options}
            async with open_agent(settings, client=client, **options) as agent:
                yield agent

    async def run(self, script: Sequence[Reply], task: str = "do it", **options: Any) -> RunResult:
        """Complete one run, then close the session."""
        checks = options.pop("checks", ())
        async with self.agent(script, **options) as agent:
            return await agent.start(task, checks=checks).result()

    def state(self, session: str) -> AgentState:
        """The current state of a session."""
        return load_state(session)


@pytest.fixture
def sessions(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    data = tmp_path / "data"
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(data))
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    return Sessions(workspace, data)


def shell(command: str) -> Reply:
    """A reply that runs a command."""
    return Reply(calls=[("shell", {"command": command})])


def write(path: str, content: str) -> Reply:
    """A reply that writes a file."""
    return Reply(calls=[("write_file", {"path": path, "content": content})])


def read(path: str) -> Reply:
    """A reply that reads a file."""
    return Reply(calls=[("read_file", {"path": path})])


def files(folder: Path) -> dict[str, str]:
    """The content of a folder, for comparison: each file's mode and content or a link's target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = f"dir {path.stat().st_mode & 0o777:o}"
        else:
            found[name] = f"{path.stat().st_mode & 0o777:o} {path.read_bytes()!r}"
    return found
