"""Previews an edit: computes its diff by executing it without the writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from agentcli.environments.base import Environment
from agentcli.errors import AgentCLIError
from agentcli.tools.base import Tool, ToolContext


class _ReadOnly:
    """An environment in which writing and removing do nothing."""

    def __init__(self, inner: Environment) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, path: str, data: bytes, **how: Any) -> None:
        """Do nothing."""

    async def remove(self, path: str, **how: Any) -> None:
        """Do nothing."""


async def preview_diff(tool: Tool, context: ToolContext, arguments: Mapping[str, Any]) -> str:
    """The diff of a call of an ``only_writes`` tool; empty for other tools and failing calls.

    Errors of the call are reported when it runs.
    """
    if not tool.spec.only_writes:
        return ""
    environment = cast(Environment, _ReadOnly(context.environment))
    try:
        output = await tool.function(replace(context, environment=environment), **arguments)
    except AgentCLIError:
        return ""
    return "" if isinstance(output, str) else output.diff
