"""decline: the model states that it cannot do the task, and the run ends."""

from __future__ import annotations

from agentcli.tools.base import STOP, Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool


async def decline(context: ToolContext, reason: str) -> ToolOutput:
    """End the task, because it cannot be done.

    Args:
        reason: One sentence for the user: why, and what to do instead.
    """
    return ToolOutput(reason, data={STOP: "declined"})


def decline_tool() -> Tool:
    """Make the tool, for models that were trained to decline."""
    return tool(decline, ToolKind.PLAN)
