"""A real workspace, environment and registry for the tests of tools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentcli.environments.base import opened
from agentcli.environments.host import HostEnvironment
from agentcli.messages import ToolCall, ToolResult
from agentcli.sandbox.process import Supervisor
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry

TOOLS = builtin_tools()
Call = Callable[..., Awaitable[ToolResult]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
async def context(workspace: Path, supervisor: Supervisor) -> AsyncIterator[ToolContext]:
    """A tool context for the workspace on this machine."""
    async with opened(HostEnvironment(workspace, supervisor)) as environment:
        yield ToolContext(environment)


@pytest.fixture
def call(context: ToolContext) -> Call:
    """Calls a built-in tool through the registry: ``await call("grep", pattern="x")``."""
    registry = Registry(TOOLS)

    async def dispatch(name: str, **arguments: Any) -> ToolResult:
        return await registry.dispatch(ToolCall("1", name, json.dumps(arguments)), context)

    return dispatch
