"""The diff of an edit before it runs, found by executing it without its writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from agentcli.environments.base import Environment
from agentcli.errors import AgentCLIError
from agentcli.tools.base import Tool, ToolContext


class _Unwritten:
    """An environment as it is, in which nothing is written or removed."""

    def __init__(self, inner: Environment) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, path: str, data: bytes, **how: Any) -> None:
        """Nothing is written."""

    async def remove(self, path: str, **how: Any) -> None:
        """Nothing is removed."""


async def proposed(tool: Tool, context: ToolContext, arguments: Mapping[str, Any]) -> str:
    """The diff of a call of a tool that only writes; empty where there is none to be had.

    What is wrong with the call is told when it runs.
    """
    if not tool.spec.only_writes:
        return ""
    unwritten = cast(Environment, _Unwritten(context.environment))
    try:
        output = await tool.function(replace(context, environment=unwritten), **arguments)
    except AgentCLIError:
        return ""
    return "" if isinstance(output, str) else output.diff
