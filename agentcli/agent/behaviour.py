"""The behaviour of an agent: methods that the kernel calls at fixed points of a step."""

from __future__ import annotations

from collections.abc import Sequence

from agentcli.agent.decision import Decision
from agentcli.agent.events import StopReason
from agentcli.agent.state import AgentState
from agentcli.messages import Message, ToolResult


class Behaviour:
    """Override what you need; as it stands, the model does all.

    Texts that ``init_state``, ``observe`` and ``reduce`` return join the history as messages, so
    that everything the model reads is in the journal. An error that a method raises is a recovery.
    """

    def init_state(self, state: AgentState) -> Sequence[Message]:
        """Messages that stand between the system prompt and the task."""
        return ()

    def build_system_prompt(self, state: AgentState) -> str:
        """The system prompt; empty for none."""
        return ""

    async def observe(self, state: AgentState) -> str:
        """News of the world that the model should read before it decides."""
        return ""

    async def decide(self, state: AgentState) -> Decision | None:
        """A decision, or None to ask the model."""
        return None

    async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
        """What the model should be told after these results."""
        return ""

    def should_stop(self, state: AgentState) -> StopReason | None:
        """A condition of the agent's own for ending the run."""
        return None

    def announce_mode(self, told: str, mode: str) -> str:
        """What the model must know when the mode is no longer the one it was told of."""
        return ""
