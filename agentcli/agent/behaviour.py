"""An agent's behaviour: methods that the kernel calls at fixed points of a step."""

from __future__ import annotations

from collections.abc import Sequence

from agentcli.agent.decision import Decision
from agentcli.agent.events import StopReason
from agentcli.agent.state import AgentState
from agentcli.messages import Message, ToolResult


class Behaviour:
    """Override the methods you need; by default the model decides everything.

    What ``init_state``, ``observe`` and ``reduce`` return is added to the history as messages, so
    that the journal holds everything the model reads. If a method raises, the kernel recovers.
    """

    def init_state(self, state: AgentState) -> Sequence[Message]:
        """Messages to place between the system prompt and the task."""
        return ()

    def build_system_prompt(self, state: AgentState) -> str:
        """The system prompt; empty for none."""
        return ""

    async def observe(self, state: AgentState) -> str:
        """An observation that the model should read before it decides."""
        return ""

    async def decide(self, state: AgentState) -> Decision | None:
        """A decision, or None to ask the model."""
        return None

    async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
        """A text to tell the model after these results."""
        return ""

    def should_stop(self, state: AgentState) -> StopReason | None:
        """A reason to end the run, or None to go on."""
        return None

    def announce_mode(self, told: str, mode: str) -> str:
        """A text to tell the model when the mode has changed from ``told`` to ``mode``."""
        return ""
