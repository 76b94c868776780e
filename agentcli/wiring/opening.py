"""Opening an agent.

The supervisor starts first, before any thread; then the model's SDK is imported while the file
worker starts, since both are slow.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from agentcli import __version__, extras
from agentcli.agent.critics import Critic, ModelCritic
from agentcli.agent.events import SessionStarted
from agentcli.agent.gate import PlanGate
from agentcli.agent.hooks import Hook
from agentcli.agent.instructions import Instructions
from agentcli.agent.kernel import Agent
from agentcli.agent.memory import memory_named
from agentcli.agent.module import AgentModule, CodingAgent
from agentcli.agent.preflight import Preflight, look
from agentcli.agent.recovery import RetryConfig
from agentcli.agent.state import AgentState
from agentcli.config import user_folder
from agentcli.environments.base import Environment
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ConfigError
from agentcli.llm import registry
from agentcli.llm.client import LLMClient, Sampling
from agentcli.prompts import Prompts
from agentcli.sandbox import offline
from agentcli.session import store
from agentcli.session.journal import Journal
from agentcli.session.trace import Trace
from agentcli.settings import Settings
from agentcli.task import Task
from agentcli.tools.approval import Ask
from agentcli.tools.base import Checks, Tool, ToolContext
from agentcli.tools.permissions import Mode
from agentcli.tools.plan import plan_tool
from agentcli.tools.verify import verify
from agentcli.user_hooks import UserHooks
from agentcli.wiring.limits import context_rules, run_limits, secrets, tool_limits
from agentcli.wiring.models import connect, fallbacks
from agentcli.wiring.places import Place, copies_of, place_of, tries_of
from agentcli.wiring.plugged import plugin_hooks
from agentcli.wiring.toolbox import Toolbox, chosen, learnt_tools, register

_TELEMETRY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@asynccontextmanager
async def open_agent(
    settings: Settings,
    *,
    workspace: Path,
    task: Task | None = None,
    model: str | None = None,
    mode: str | None = None,
    session_id: str | None = None,
    hooks: Sequence[Hook] = (),
    critics: Sequence[Critic] = (),
    more_tools: Sequence[Tool] = (),
    ask: Ask | None = None,
    client: LLMClient | None = None,
    copy: HostEnvironment | None = None,
) -> AsyncIterator[Agent]:
    """An agent that works in ``workspace``; everything it holds is closed at the end.

    ``task``, ``model`` and ``mode`` override the settings. ``session_id`` resumes a session
    instead of opening a new one, with its model unless ``model`` names another; ``ask`` answers
    for the user where the mode asks. ``client`` replaces the model's own client; ``more_tools``
    are offered beside the built-in ones; ``copy`` is a copy of the workspace to work on, which
    its owner starts and closes.

    Raises:
        AgentCLIError: the run cannot begin; each subclass has its exit code.
    """
    root = workspace.resolve()
    where = (task.env if task else None) or settings.env
    chosen_mode = Mode(mode or settings.mode or Mode.AUTO)
    notices: list[str] = []

    # What ``last`` holds is waited for last: it goes on while all else ends.
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        state = AgentState()
        journal: Journal | None = None
        if session_id:  # locked before it is read, so that nobody adds to it in between
            session_id = store.find_session(session_id)
            journal = _journal(session_id, stack)
            # Beside: a long one takes a second, and a screen may wait.
            state = await asyncio.to_thread(store.load_state, session_id)
        _check_session(state, root)
        name = model or state.model or settings.model or registry.default_model()
        small = registry.learnt_its_tools(name)
        prompts = Prompts.standard(user=user_folder() / "prompts")
        command, check = tool_limits(settings)
        rules, processors = context_rules(settings.context, prompts, small=small)
        new_id = session_id or store.new_session_id()
        path = store.journal_path(new_id)
        if settings.offline:
            stack.enter_context(offline.enforced())
        looks_only = chosen_mode is Mode.PLAN
        place = place_of(where, root, settings, looks_only=looks_only, copy=copy)
        stack.push_async_callback(place.aclose)
        client = await _started(place, name, settings, client)
        environment = place.environment
        if environment.level == "reduced" and settings.sandbox == "auto":
            notices.append(f"sandbox level reduced: {place.why()}")
        module: AgentModule = AgentModule()
        toolbox = Toolbox(settings, root, prompts, path.parent)
        if small:
            tools = learnt_tools(command, check)
        else:
            tools = await toolbox.gather(command, check, stack, notices)
            instructions = Instructions(environment, user_folder())
            await instructions.load()
            instructions.add(toolbox.instructions)
            module = CodingAgent(prompts, instructions, toolbox.mentioned)
        wanted = task.tools if task else ()
        tools = chosen([*tools, *more_tools], wanted, () if small else settings.extra_tools)
        if settings.plan_gate and not small:
            tools.append(plan_tool(prompts))
        hooks = [*hooks, *plugin_hooks(notices)]
        if settings.hooks:
            commands = UserHooks(settings.hooks, str(root), os.environ)
            stack.push_async_callback(commands.aclose)
            hooks, critics = [*hooks, *commands.each], [*critics, commands]
            if not small:
                instructions.add(await commands.at_start(new_id))
        if settings.critic:
            judge = await asyncio.to_thread(connect, settings.critic, settings)
            stack.push_async_callback(judge.aclose)
            critics = [*critics, ModelCritic(judge, prompts.get("critic"))]
        tool_registry = register(tools, settings, mode=chosen_mode, ask=ask, root=root, seed=new_id)
        if settings.plan_gate and not small:
            hooks = [*hooks, PlanGate(tool_registry.purpose)]
        host, recorded = place.host, place.recorded
        journal = journal or _journal(new_id, stack)
        trace = Trace(journal, state)
        last.push_async_callback(trace.aclose)
        agent = Agent(
            client=client,
            tools=tool_registry,
            context=ToolContext(
                environment,
                checks=Checks(**settings.checks.model_dump()),
                command=command,
                check=check,
                output_chars=settings.limits.output_chars,
                copies=copies_of(settings, root) if ask and host and host.mounts else None,
                jobs=toolbox.jobs,
                servers=toolbox.servers,
                changing=recorded.changing if recorded else nullcontext,
            ),
            log=journal,
            session=SessionStarted(
                new_id,
                str(root),
                name,
                chosen_mode.value,
                environment.level,
                tuple(f"{tool.spec.name}@{tool.spec.version}" for tool in tools),
                __version__,
                settings.commands_network,
                hashlib.sha256(settings.model_dump_json().encode()).hexdigest(),
            ),
            module=module,
            hooks=[*hooks, trace, *_telemetry(settings, stack, notices)],
            critics=critics,
            preflight=_looking(task, state, environment, tools),
            limits=run_limits(settings, task or Task(""), state.limits),
            retry=RetryConfig(attempts=settings.retries + 1),
            price_of=registry.price_of,
            window_of=registry.window_of,
            check=verify,
            sampling=Sampling(
                max_tokens=settings.max_output_tokens, temperature=settings.temperature
            ),
            fallbacks=fallbacks(settings),
            connect=functools.partial(connect, settings=settings),
            state=state,
            copies=tries_of(settings, root) if small and where == "host" else None,
            recorder=recorded,
            rules=rules,
            processors=processors,
            memory=memory_named(settings.context.memory),
        )
        agent.notices = notices
        toolbox.bind(agent)
        try:
            yield agent
        finally:
            await agent.client.aclose()


def _journal(session_id: str, stack: AsyncExitStack) -> Journal:
    """A session's journal, let go of with all that the stack holds."""
    journal = Journal(store.journal_path(session_id), secrets=secrets(os.environ))
    stack.callback(journal.close)
    return journal


async def _started(
    place: Place, name: str, settings: Settings, client: LLMClient | None
) -> LLMClient:
    """Start the place and connect the model beside it."""
    starting = asyncio.create_task(place.start())
    await asyncio.sleep(0)  # the supervisor forks here, while there is no thread yet
    try:
        registry.preload(name, settings)
        if client is None:
            client = await asyncio.to_thread(connect, name, settings)
    except BaseException:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise
    await starting
    return client


def _telemetry(settings: Settings, stack: AsyncExitStack, notices: list[str]) -> list[Hook]:
    """Spans for OpenTelemetry, where the environment says where to send them."""
    wanted = any(os.environ.get(name) for name in _TELEMETRY)
    if not wanted or settings.offline or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return []
    try:
        from agentcli.session.spans import Spans, exporting
    except ImportError:
        notices.append(f"no spans are sent: {extras.install('otel')}")
        return []
    spans = Spans(exporting())
    stack.push_async_callback(asyncio.to_thread, spans.close)
    return [spans]


def _looking(
    task: Task | None, state: AgentState, environment: Environment, tools: Sequence[Tool]
) -> Preflight | None:
    """What to look at before the first step; a session that goes on has a task already."""
    if task is None:
        return None
    task = replace(task, instruction=task.instruction or state.task)
    return functools.partial(look, task, environment, [tool.spec for tool in tools])


def _check_session(state: AgentState, root: Path) -> None:
    if state.workspace and state.workspace != str(root):
        raise ConfigError(
            f"session {state.session_id} belongs to {state.workspace}, not to {root}",
            hint=f"Add --workspace {state.workspace}",
        )
