"""Opens an agent: its session, environment, model, tools and hooks, in this order.

The environment's supervisor is started before the model is connected, which starts threads.
Connecting the model imports its SDK, which is slow, and happens while the environment's file worker
starts.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from pathlib import Path

from agentcli import __version__
from agentcli.agent.budget import ContextRules
from agentcli.agent.critics import Critic
from agentcli.agent.events import SessionStarted
from agentcli.agent.gate import PlanGate
from agentcli.agent.hooks import Hook
from agentcli.agent.instructions import Instructions
from agentcli.agent.kernel import Agent
from agentcli.agent.memory import memory_named
from agentcli.agent.module import AgentModule, CodingAgent
from agentcli.agent.preflight import Preflight, look
from agentcli.agent.processors.base import Processor
from agentcli.agent.recovery import RetryConfig
from agentcli.agent.state import AgentState
from agentcli.environments.base import Environment
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ConfigError
from agentcli.folders import user_folder
from agentcli.llm import registry
from agentcli.llm.client import LLMClient, Sampling
from agentcli.prompts import Prompts
from agentcli.sandbox import offline
from agentcli.session import store
from agentcli.session.journal import Journal
from agentcli.session.trace import Trace
from agentcli.settings import Settings
from agentcli.task import Budget, Task
from agentcli.tools.approval import Ask
from agentcli.tools.base import Checks, Tool, ToolContext
from agentcli.tools.permissions import Mode
from agentcli.tools.plan import plan_tool
from agentcli.tools.verify import verify
from agentcli.user_hooks import UserHooks
from agentcli.wiring.hooks import model_critic, telemetry, user_hooks
from agentcli.wiring.limits import context_rules, run_limits, secrets, tool_limits
from agentcli.wiring.models import connect, fallbacks
from agentcli.wiring.places import Place, copies_of, place_of, tries_of
from agentcli.wiring.plugged import plugin_hooks
from agentcli.wiring.rule_names import check_rule_names, idle_rules
from agentcli.wiring.toolbox import Toolbox, chosen, learnt_tools, register


@asynccontextmanager
async def open_agent(
    settings: Settings,
    *,
    workspace: Path,
    task: Task | None = None,
    model: str | None = None,
    mode: str | None = None,
    session_id: str | None = None,
    budget: Budget | None = None,
    hooks: Sequence[Hook] = (),
    critics: Sequence[Critic] = (),
    more_tools: Sequence[Tool] = (),
    ask: Ask | None = None,
    client: LLMClient | None = None,
    copy: HostEnvironment | None = None,
) -> AsyncIterator[Agent]:
    """Open an agent that works in ``workspace``, and close everything it holds on exit.

    A run that is still in progress then is cancelled.

    ``task``, ``model`` and ``mode`` override the settings. ``session_id`` resumes a session, with
    its own model unless ``model`` names another; without a task, ``budget`` overrides the session's
    limits. ``ask`` answers for the user if the mode asks.
    ``client`` replaces the client of the model. ``more_tools`` are offered in addition to the
    built-in ones. ``copy`` is a copy of the workspace to work on; the caller starts and closes it.

    Raises:
        AgentCLIError: the agent cannot be opened; each subclass has its own exit code.
    """
    root = workspace.resolve()
    # ``last`` closes after ``stack``: the trace is written while everything else closes.
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        session = await _session(session_id, root, settings, stack)
        state = session.state
        name = model or state.model or settings.model or registry.default_model()
        permissions = Mode(mode or settings.mode or Mode.AUTO)
        opening = _Opening(settings, root, task, session.id, name, permissions, stack)
        rules, processors = opening.context_rules()
        place, client = await opening.start(client, copy)
        toolbox, tools = await opening.gather_tools(more_tools)
        tool_registry = register(
            tools,
            settings,
            mode=permissions,
            ask=ask,
            root=root,
            confined=not place.environment.level.startswith(("none", "ssh:")),
            seed=session.id,
        )
        hooks = [*hooks, *plugin_hooks(opening.notices)]
        commands = user_hooks(settings, root, stack)
        module = await opening.module(place.environment, toolbox, commands)
        if commands:
            hooks, critics = [*hooks, *commands.each], [*critics, commands]
        if judge := await model_critic(settings, opening.prompts, stack):
            critics = [*critics, judge]
        if opening.plan_gate:
            hooks = [*hooks, PlanGate(tool_registry.purpose)]
        journal = session.journal or _journal(session.id, settings, stack)
        trace = Trace(journal, state)
        last.push_async_callback(trace.aclose)
        agent = Agent(
            client=client,
            tools=tool_registry,
            context=opening.tool_context(place, toolbox, ask),
            log=journal,
            session=opening.started(place.environment, tools),
            state=state,
            module=module,
            hooks=[*hooks, trace, *telemetry(settings, stack, opening.notices)],
            critics=critics,
            preflight=opening.preflight(state, place.environment, tools),
            limits=run_limits(settings, task or Task("", budget=budget or Budget()), state.limits),
            retry=RetryConfig(attempts=settings.retries + 1),
            sampling=Sampling(
                max_tokens=settings.max_output_tokens, temperature=settings.temperature
            ),
            fallbacks=fallbacks(settings),
            connect=functools.partial(connect, settings=settings),
            price_of=registry.price_of,
            window_of=registry.window_of,
            check=verify,
            copies=opening.candidate_copies(),
            recorder=place.recorded,
            rules=rules,
            processors=processors,
            memory=memory_named(settings.context.memory),
        )
        agent.notices = opening.notices
        toolbox.bind(agent)
        try:
            yield agent
        finally:
            await agent.end()
            await agent.client.aclose()


@dataclass(frozen=True)
class _Session:
    """The session to work in. A new one has no journal until everything else is open."""

    id: str
    state: AgentState
    journal: Journal | None


async def _session(
    session_id: str | None, root: Path, settings: Settings, stack: AsyncExitStack
) -> _Session:
    """Resume a session, or choose an id for a new one."""
    if not session_id:
        return _Session(store.new_session_id(), AgentState(), None)
    session_id = store.find_session(session_id)
    # This locks it, so that nobody appends while it is read.
    journal = _journal(session_id, settings, stack)
    # In a thread: a long journal takes a second, and a screen may be waiting.
    state = await asyncio.to_thread(store.load_state, session_id)
    if state.workspace and state.workspace != str(root):
        raise ConfigError(
            f"session {state.session_id} belongs to {state.workspace}, not to {root}",
            hint=f"Add --workspace {state.workspace}",
        )
    return _Session(session_id, state, journal)


def _journal(session_id: str, settings: Settings, stack: AsyncExitStack) -> Journal:
    """Open and lock a session's journal; ``stack`` closes it."""
    journal = Journal(store.journal_path(session_id), secrets=secrets(settings, os.environ))
    stack.callback(journal.close)
    return journal


class _Opening:
    """The steps of opening an agent, with the choices that they share."""

    def __init__(
        self,
        settings: Settings,
        root: Path,
        task: Task | None,
        session_id: str,
        model: str,
        mode: Mode,
        stack: AsyncExitStack,
    ) -> None:
        """``stack`` closes what the steps open."""
        self._settings = settings
        self._root = root
        self._task = task
        self._session_id = session_id
        self._model = model
        self._mode = mode
        self._stack = stack
        self._where = (task.env if task else None) or settings.env
        self._command, self._check = tool_limits(settings)
        self._small = registry.learnt_its_tools(model)
        self.prompts = Prompts.standard(user=user_folder() / "prompts")
        self.notices: list[str] = []
        self.plan_gate = settings.plan_gate and not self._small

    def context_rules(self) -> tuple[ContextRules, tuple[Processor, ...]]:
        """When and how a long conversation is shortened."""
        return context_rules(self._settings.context, self.prompts, small=self._small)

    async def start(
        self, client: LLMClient | None, copy: HostEnvironment | None
    ) -> tuple[Place, LLMClient]:
        """Start the environment, and connect the model unless ``client`` replaces it."""
        settings = self._settings
        if settings.offline:
            self._stack.enter_context(offline.enforced())
        looks_only = self._mode is Mode.PLAN
        place = place_of(self._where, self._root, settings, looks_only=looks_only, copy=copy)
        self._stack.push_async_callback(place.aclose)
        starting = asyncio.create_task(place.start())
        await asyncio.sleep(0)  # lets the supervisor fork before ``preload`` starts a thread
        try:
            registry.preload(self._model, settings)
            if client is None:
                client = await asyncio.to_thread(connect, self._model, settings)
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise
        await starting
        if place.environment.level == "reduced" and settings.sandbox == "auto":
            self.notices.append(f"sandbox level reduced: {place.why()}")
        if client.info.warning:
            self.notices.append(client.info.warning)
        return place, client

    async def gather_tools(self, more: Sequence[Tool]) -> tuple[Toolbox, list[Tool]]:
        """The tools that the task and the settings choose from all there are, ``more`` included."""
        settings, small = self._settings, self._small
        folder = store.journal_path(self._session_id).parent
        toolbox = Toolbox(settings, self._root, self.prompts, folder)
        if small:
            gathered = learnt_tools(self._command, self._check)
        else:
            gathered = await toolbox.gather(self._command, self._check, self._stack, self.notices)
        names = {tool.spec.name for tool in (*gathered, *more)}
        check_rule_names(settings, names)
        if toolbox.servers is not None:
            self.notices += idle_rules(settings, names)
        wanted = self._task.tools if self._task else ()
        tools = chosen([*gathered, *more], wanted, () if small else settings.extra_tools)
        if self.plan_gate:
            tools.append(plan_tool(self.prompts))
        return toolbox, tools

    async def module(
        self, environment: Environment, toolbox: Toolbox, commands: UserHooks | None
    ) -> AgentModule:
        """The agent's behaviour; a model that learnt its tools needs no system prompt."""
        if self._small:
            return AgentModule()
        instructions = Instructions(environment, user_folder())
        await instructions.load()
        instructions.add(toolbox.instructions)
        if commands:
            instructions.add(await commands.at_start(self._session_id))
        return CodingAgent(self.prompts, instructions, toolbox.mentioned)

    def tool_context(self, place: Place, toolbox: Toolbox, ask: Ask | None) -> ToolContext:
        """What tool calls may use. With ``ask``, the user can approve their effect on a copy."""
        settings, host, recorded = self._settings, place.host, place.recorded
        return ToolContext(
            place.environment,
            checks=Checks(**settings.checks.model_dump()),
            command=self._command,
            check=self._check,
            output_chars=settings.limits.output_chars,
            copies=copies_of(settings, self._root) if ask and host and host.mounts else None,
            jobs=toolbox.jobs,
            servers=toolbox.servers,
            changing=recorded.changing if recorded else nullcontext,
        )

    def started(self, environment: Environment, tools: Sequence[Tool]) -> SessionStarted:
        """The event that opens the journal."""
        settings = self._settings
        return SessionStarted(
            self._session_id,
            str(self._root),
            self._model,
            self._mode.value,
            environment.level,
            tuple(f"{tool.spec.name}@{tool.spec.version}" for tool in tools),
            __version__,
            settings.commands_network,
            hashlib.sha256(settings.model_dump_json().encode()).hexdigest(),
        )

    def preflight(
        self, state: AgentState, environment: Environment, tools: Sequence[Tool]
    ) -> Preflight | None:
        """The check of the task before the first step; a resumed session may supply its text."""
        if self._task is None:
            return None
        task = replace(self._task, instruction=self._task.instruction or state.task)
        return functools.partial(look, task, environment, [tool.spec for tool in tools])

    def candidate_copies(self) -> Callable[[], AbstractAsyncContextManager[HostEnvironment]] | None:
        """Opens the copies on which a small model's candidate edits are tried."""
        on_this_machine = self._where == "host"
        return tries_of(self._settings, self._root) if self._small and on_this_machine else None
