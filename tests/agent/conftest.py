"""A whole agent built from real parts: a scripted model server, a workspace and a log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import Event, MemoryLog, RunFinished, SessionStarted
from agentcli.agent.folding import fold_all
from agentcli.agent.kernel import Agent
from agentcli.agent.module import AgentModule
from agentcli.agent.recovery import RetryConfig
from agentcli.agent.run import Run, RunResult
from agentcli.agent.state import AgentState
from agentcli.environments.host import HostEnvironment
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import validate_history
from agentcli.sandbox.process import Supervisor
from agentcli.tools.base import Tool, ToolContext
from agentcli.tools.registry import Registry
from agentcli.tools.verify import verify
from tests.server import Reply, ScriptedServer

QUICK_RETRIES = RetryConfig(first_delay_s=0.01, max_delay_s=0.02)


@dataclass
class Bench:
    """An agent with its log, its model server and its workspace."""

    agent: Agent
    log: MemoryLog
    server: ScriptedServer
    workspace: Path

    async def run(self, task: str = "do it", **options: Any) -> RunResult:
        """Complete one run and check the invariants of every run."""
        before = len(self.log.events)
        result = await self.agent.start(task, **options).result()
        assert result.events == tuple(self.log.events[before:])
        self.check(result.state)
        return result

    async def watch(self, run: Run) -> list[Event]:
        """Collect the events of a run."""
        return [event async for event in run]

    def check(self, state: AgentState) -> None:
        """The history is well-formed, the log folds to the state, and the run finished once."""
        validate_history(tuple(state.history))
        assert fold_all(self.log.events) == state
        assert sum(isinstance(event, RunFinished) for event in self.log.events) == 1
        assert self.server.faults == []

    def kinds(self) -> list[str]:
        """The type names of the recorded events, in order."""
        return [type(event).__name__ for event in self.log.events]


Make = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def bench(tmp_path: Path, supervisor: Supervisor) -> AsyncIterator[Make]:
    """Builds agents: ``await bench([Reply(...)], tools=[...])``."""
    async with AsyncExitStack() as stack:

        async def make(
            script: Sequence[Any],
            tools: Sequence[Tool] = (),
            *,
            limits: RunLimits | None = None,
            state: AgentState | None = None,
            log: MemoryLog | None = None,
            module: AgentModule | None = None,
            **options: Any,
        ) -> Bench:
            server = await stack.enter_async_context(ScriptedServer([_reply(s) for s in script]))
            client = OpenAIChat(ModelInfo("scripted", "openai"), "sk-test", server.url)
            stack.push_async_callback(client.aclose)
            environment = HostEnvironment(tmp_path, supervisor)
            await environment.start()
            stack.push_async_callback(environment.aclose)
            memory = log or MemoryLog()
            agent = Agent(
                client=client,
                tools=Registry(tools),
                context=ToolContext(environment),
                log=memory,
                session=SessionStarted("s1", str(tmp_path), "scripted", "auto", "none", (), "0"),
                module=module or AgentModule(),
                limits=limits or RunLimits(),
                retry=QUICK_RETRIES,
                state=state or AgentState(),
                check=verify,
                **options,
            )
            return Bench(agent, memory, server, tmp_path)

        yield make


def _reply(item: Any) -> Any:
    return Reply(text=item) if isinstance(item, str) else item
