"""The plan gate: no file may be changed until the model has made a plan."""

from __future__ import annotations

from collections.abc import Callable

from agentcli.agent.hooks import Allow, Deny, Hook, Verdict
from agentcli.agent.state import AgentState
from agentcli.messages import ToolCall
from agentcli.tools.base import ToolKind

_CLOSED = "make a plan of 3 to 6 steps first; files can be changed after that"


class PlanGate(Hook):
    """Denies edits until the task has a plan; ``purpose`` says what a call is for."""

    def __init__(self, purpose: Callable[[ToolCall], ToolKind | None]) -> None:
        self._purpose = purpose

    async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
        """See ``Hook.before_tool``."""
        closed = not state.plan and self._purpose(call) is ToolKind.EDIT
        return Deny(_CLOSED) if closed else Allow()
