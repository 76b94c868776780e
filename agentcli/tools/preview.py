"""Previews a call: the diff of an edit, executed without the writes; what a check would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from agentcli.environments.base import Environment
from agentcli.errors import ToolError
from agentcli.messages import Outcome
from agentcli.tools.approval import Foreseen
from agentcli.tools.base import Tool, ToolContext, ToolOutput


class CallFails(ToolError):
    """The call would fail, with this ``output``."""

    def __init__(self, output: ToolOutput) -> None:
        super().__init__(output.content)
        self.output = output


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


async def preview(tool: Tool, context: ToolContext, arguments: Mapping[str, Any]) -> Foreseen:
    """What is known of a call before it runs; raises like ``preview_diff``."""
    runs = await tool.runs(context, **arguments) if tool.runs is not None else ""
    return Foreseen(await preview_diff(tool, context, arguments), runs)


async def preview_diff(tool: Tool, context: ToolContext, arguments: Mapping[str, Any]) -> str:
    """The diff of a call of an ``only_writes`` tool; empty for other tools.

    Raises:
        CallFails: the call would fail, so there is nothing to ask the user about.
        AgentCLIError: likewise, as the tool raises it.
    """
    if not tool.spec.only_writes:
        return ""
    environment = cast(Environment, _ReadOnly(context.environment))
    context = replace(context, environment=environment, seen=context.seen.copy())
    output = await tool.function(context, **arguments)
    if isinstance(output, str):
        return ""
    if output.outcome is not Outcome.OK:
        raise CallFails(output)
    return output.diff
