"""What makes an agent this agent: six methods that the kernel calls at fixed places."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentcli.agent.events import StopReason
from agentcli.agent.instructions import Instructions
from agentcli.agent.state import AgentState
from agentcli.messages import Message, ToolCall, ToolResult
from agentcli.prompts import Prompts


@dataclass(frozen=True, slots=True)
class Act:
    """Run these calls."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """The work is done; the answer is never empty."""

    answer: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing in this step."""


Decision: TypeAlias = Act | Final | Wait


class AgentModule:
    """Override what you need.

    Texts that ``init_state``, ``observe`` and ``reduce`` return join the history as messages, so
    that everything the model reads is in the journal.
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


class CodingAgent(AgentModule):
    """Works on a repository until the task is done."""

    def __init__(
        self, prompts: Prompts | None = None, instructions: Instructions | None = None
    ) -> None:
        self._prompts = prompts or Prompts.standard()
        self._instructions = instructions

    def build_system_prompt(self, state: AgentState) -> str:
        """The prompt ``system`` with the facts of this session and the project's instructions."""
        facts = {
            "workspace": state.workspace,
            "platform": f"{platform.system()} {platform.machine()}",
            "sandbox": state.sandbox,
            "mode": state.mode,
        }
        parts = [self._prompts.render("system", facts)]
        if state.mode == "plan":
            parts.append(self._prompts.get("plan"))
        if self._instructions and self._instructions.opening:
            parts.append(self._instructions.opening)
        return "\n\n".join(parts)

    def announce_mode(self, told: str, mode: str) -> str:
        """Entering and leaving plan mode; the others differ in what the user is asked."""
        if mode == "plan" and told != "plan":
            return self._prompts.get("plan")
        return self._prompts.get("plan_over") if told == "plan" and mode != "plan" else ""

    async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
        """The instructions of folders in which these results are the first."""
        if self._instructions is None:
            return ""
        paths = [path for result in results for path in result.paths]
        return await self._instructions.near(paths, (message.text for message in state.history))
