"""``AgentModule``, which library users subclass, and agentcli's own ``CodingAgent``."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentcli.agent.behaviour import Behaviour
from agentcli.agent.decision import Act, Decision
from agentcli.agent.instructions import Instructions
from agentcli.agent.kernel import Agent
from agentcli.agent.run import RunResult
from agentcli.agent.state import AgentState
from agentcli.llm.client import LLMClient
from agentcli.messages import Role, ToolCall, ToolResult
from agentcli.prompts import Prompts
from agentcli.tools.base import Tool


class AgentModule(Behaviour):
    """The base class for library users: a behaviour that can run itself."""

    def run(
        self,
        task: str,
        client: LLMClient,
        tools: Iterable[Tool] = (),
        *,
        return_state: bool = False,
        **options: Any,
    ) -> str | RunResult:
        """Run a task to its end; return the answer, or with ``return_state`` the whole result.

        ``options`` are further arguments of ``Agent``. This is for synchronous code; in an event
        loop, use ``await Agent(client, tools, module=self).start(task).result()``.

        Raises:
            ConfigError: a tool's definition is invalid. A failed run does not raise: its result
                says how it ended.
        """

        async def work() -> RunResult:
            agent = Agent(client, tools, module=self, **options)
            try:
                return await agent.start(task).result()
            finally:
                await agent.client.aclose()

        result = asyncio.run(work())
        return result if return_state else result.task_result


class CodingAgent(AgentModule):
    """Works on a repository until the task is done."""

    def __init__(
        self,
        prompts: Prompts | None = None,
        instructions: Instructions | None = None,
        mentioned: Callable[[str], Sequence[ToolCall]] | None = None,
    ) -> None:
        """``mentioned`` makes the calls that read the files a task's text mentions."""
        self._prompts = prompts or Prompts.standard()
        self._instructions = instructions
        self._mentioned = mentioned

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
        """Announce entering and leaving plan mode; the other modes look the same to the model."""
        if mode == "plan" and told != "plan":
            return self._prompts.get("plan")
        return self._prompts.get("plan_over") if told == "plan" and mode != "plan" else ""

    async def decide(self, state: AgentState) -> Decision | None:
        """Before the model is asked for the first time, read the files that the task mentions."""
        if self._mentioned is None or not _is_new(state):
            return None
        calls = self._mentioned(state.task)
        return Act(tuple(calls)) if calls else None

    async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
        """The instructions of folders that these results touch for the first time."""
        if self._instructions is None:
            return ""
        paths = [path for result in results for path in result.paths]
        return await self._instructions.near(paths, (message.text for message in state.history))


def _is_new(state: AgentState) -> bool:
    """Whether no work on the task has started. Other notes may follow its text."""
    for place in range(len(state.history) - 1, -1, -1):
        message = state.history[place]
        if message.role is not Role.USER:
            return False
        if message.text == state.task:
            return True
    return False
