"""Sub-agents: each has its own history, journal and limits, and reads the same workspace.

A sub-agent has only tools that read, and cannot delegate further. Its requests count towards the
usage and cost of the parent session.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agentcli import __version__
from agentcli.agent.behaviour import Behaviour
from agentcli.agent.budget import Price, RunLimits
from agentcli.agent.events import ModelUsed, Status, ToolStarted
from agentcli.agent.kernel import Agent
from agentcli.agent.state import AgentState
from agentcli.llm.client import ModelInfo
from agentcli.messages import Outcome
from agentcli.prompts import Prompts
from agentcli.session.journal import FILE_NAME, Journal
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from agentcli.tools.rules import Rules
from agentcli.tools.seen import Seen
from agentcli.wording import describe_call

_STEPS = 30
_SHARE = 0.5
"""The share of the session's remaining budget that one sub-agent may use."""


class SubAgent(Behaviour):
    """Answers one question about the workspace."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    def build_system_prompt(self, state: AgentState) -> str:
        """The prompt ``subagent`` with the workspace's path."""
        return self._prompts.render("subagent", {"workspace": state.workspace})


class Delegation:
    """The sub-agents of one session. ``agent`` must be set to their parent."""

    def __init__(
        self,
        prompts: Prompts,
        tools: Sequence[Tool],
        *,
        folder: Path,
        secrets: Sequence[str],
        price_of: Callable[[ModelInfo], Price],
        window_of: Callable[[ModelInfo], int | None],
    ) -> None:
        self.agent: Agent | None = None
        self._prompts = prompts
        self._tools = [tool for tool in tools if tool.spec.kind in (ToolKind.READ, ToolKind.SEARCH)]
        self._folder = folder
        self._secrets = secrets
        self._price_of = price_of
        self._window_of = window_of
        self._numbers = itertools.count(1)
        self._granted: list[RunLimits] = []
        """The limits of the sub-agents at work, whose use is not yet that of the session."""

    async def spawn(self, question: str, context: ToolContext) -> ToolOutput:
        """Run a sub-agent to its end; return its answer, or why there is none."""
        parent = self.agent
        assert parent is not None
        name = self._next_name()
        path = self._folder / name / FILE_NAME
        journal = Journal(path, secrets=self._secrets)
        permissions = ModePermissions(
            Mode.PLAN, rules=_rules(parent), root=context.environment.root
        )
        session = replace(
            parent.session,
            session_id=f"{parent.session.session_id}/{name}",
            mode=Mode.PLAN.value,
            tools=tuple(f"{tool.spec.name}@{tool.spec.version}" for tool in self._tools),
            version=__version__,
        )
        limits = self._limits(parent)
        agent = Agent(
            parent.client,
            Registry(self._tools, permissions),
            replace(context, call_id="", progress=None, seen=Seen()),
            journal,
            session,
            module=SubAgent(self._prompts),
            limits=limits,
            price_of=self._price_of,
            window_of=self._window_of,
        )
        run = agent.start(question)
        self._granted.append(limits)
        try:
            async for event in run:
                if isinstance(event, ToolStarted) and context.progress:
                    context.progress("stdout", f"{describe_call(event.call)}\n".encode())
        except BaseException:
            run.cancel()
            raise
        finally:
            state = (await run.result()).state
            journal.close()
            used = ModelUsed(parent.state.running_step, "delegate", state.usage, state.cost_usd)
            self._granted.remove(limits)
            await parent.stream.emit(used)
        if state.status is Status.SOLVED:
            return ToolOutput(state.answer)
        why = state.detail or str(state.stop)
        return ToolOutput(f"error: the sub-agent gave no answer: {why}", Outcome.ERROR)

    def _next_name(self) -> str:
        """The next unused name: a resumed session has sub-agents from before."""
        return next(
            name
            for number in self._numbers
            if not (self._folder / (name := f"agent-{number}")).exists()
        )

    def _limits(self, parent: Agent) -> RunLimits:
        limits, used = parent.limits, parent.state.used
        spent = used.usage.total_tokens + sum(each.tokens or 0 for each in self._granted)
        tokens = limits.tokens and max(1, int((limits.tokens - spent) * _SHARE))
        paid = (used.cost_usd or 0) + sum(each.cost_usd or 0 for each in self._granted)
        cost = limits.cost_usd and max(1e-6, (limits.cost_usd - paid) * _SHARE)
        return RunLimits(
            max_steps=_STEPS,
            step_time_s=limits.step_time_s,
            silence_s=limits.silence_s,
            tokens=tokens,
            cost_usd=cost,
        )


def _rules(parent: Agent) -> Rules:
    """The parent's rules: what the user forbids applies to sub-agents too."""
    permissions = parent.tools.permissions
    return permissions.rules if isinstance(permissions, ModePermissions) else Rules()
