"""The composition root: from settings to an agent that is ready to run.

The supervisor starts first, before any thread; then the model's SDK is imported beside the start
of the file worker, since both take their time.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agentcli import __version__
from agentcli.agent.budget import ContextRules, RunLimits
from agentcli.agent.critics import Critic, ModelCritic
from agentcli.agent.events import ModelAnswered, SessionStarted
from agentcli.agent.gate import PlanGate
from agentcli.agent.hooks import Hook
from agentcli.agent.instructions import Instructions
from agentcli.agent.kernel import Agent
from agentcli.agent.memory import memory_named
from agentcli.agent.module import AgentModule, CodingAgent
from agentcli.agent.preflight import Preflight, look
from agentcli.agent.processors.base import Processor
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.agent.recovery import RetryConfig
from agentcli.agent.state import AgentState
from agentcli.config import cache_folder, user_folder
from agentcli.delegation import Delegation
from agentcli.environments.base import Environment
from agentcli.environments.copies import CopiedWorkspace, copied, in_place
from agentcli.environments.host import HostEnvironment
from agentcli.environments.recorded import Recorded
from agentcli.environments.snapshots import Snapshots, folder_of
from agentcli.errors import ConfigError, TaskError
from agentcli.llm import registry
from agentcli.llm.client import ChatResponse, LLMClient, Sampling
from agentcli.prompts import Prompts
from agentcli.sandbox import offline
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import Limits, of_settings
from agentcli.session import store
from agentcli.session.journal import Journal, read_events
from agentcli.session.trace import Trace
from agentcli.settings import ContextSettings, McpServerSettings, Settings
from agentcli.task import Task
from agentcli.tools.approval import Ask
from agentcli.tools.base import Checks, Tool, ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.calculator import calculator_tool
from agentcli.tools.decline import decline_tool
from agentcli.tools.delegate import delegate_tool
from agentcli.tools.fetch import fetch_tool
from agentcli.tools.mcp.servers import PROJECT_SERVERS, McpServers, project_servers
from agentcli.tools.middleware import Cache, Middleware, RateLimit
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.plan import plan_tool
from agentcli.tools.registry import Registry
from agentcli.tools.rule_file import RuleFile
from agentcli.tools.rules import check_rules, parse_rules
from agentcli.tools.todo import todo_tool
from agentcli.tools.verify import verify
from agentcli.trust import is_trusted
from agentcli.user_hooks import UserHooks

_TELEMETRY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
if TYPE_CHECKING:
    from agentcli.environments.ssh import SshEnvironment

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
# What the embedded model was trained with, beside calculator and decline.
_LEARNT = ("grep", "list_dir", "read_file", "run_tests", "search_replace")
_LEVELS: dict[str, Level | None] = {
    "auto": None,
    "full": "full",
    "reduced": "reduced",
    "none": "none",
}


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
    """An agent at work in ``workspace``; everything it holds is let go of at the end.

    What ``task``, ``model`` and ``mode`` say goes before the settings. ``session_id`` goes on with
    a session instead of opening a new one; ``ask`` answers for the user where a mode asks.
    ``client`` stands in for the model's own; ``more_tools`` are offered beside the built-in ones;
    ``copy`` is a copy of the workspace to work on, which stays its owner's to start and to close.

    Raises:
        AgentCLIError: whatever stands in the way of a run, each with its exit code.
    """
    root = workspace.resolve()
    place = (task.env if task else None) or settings.env
    chosen_mode = Mode(mode or settings.mode or Mode.AUTO)
    name = model or settings.model or registry.default_model()
    prompts = Prompts.standard(user=user_folder() / "prompts")
    command, check = _tool_limits(settings)
    tools = builtin_tools(prompts, command=command, check=check)
    search = False
    if registry.learnt_its_tools(name):
        # A small model knows its tools from training, and reads no prompt about them.
        tools = [tool for tool in tools if tool.spec.name in _LEARNT]
        tools += [calculator_tool(), decline_tool()]
        search = True
    rules, processors = _context(settings.context, prompts, small=search)
    state = store.load_state(session_id) if session_id else AgentState()
    _check_session(state, root)

    async with AsyncExitStack() as stack:
        if settings.offline:
            stack.enter_context(offline.enforced())
        chosen = copy or _environment(place, root, settings)
        host = chosen if isinstance(chosen, HostEnvironment) else None
        recorded: Recorded | None = None
        if host is not None and settings.snapshots and copy is None:
            snapshots = Snapshots(str(root), folder_of(store.data_dir(), str(root)))
            recorded = Recorded(host, snapshots, now=chosen_mode is not Mode.PLAN)
        environment = recorded or chosen
        if copy is None:
            stack.push_async_callback(environment.aclose)
        starting = asyncio.create_task(_started(environment, already=copy is not None))
        await asyncio.sleep(0)  # the supervisor forks here, while there is no thread yet
        try:
            registry.preload(name, settings)
            if client is None:
                client = await asyncio.to_thread(_connect, name, settings)
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise
        await starting
        module = AgentModule()
        notices: list[str] = []
        if environment.level == "reduced" and settings.sandbox == "auto":
            notices.append(f"sandbox level reduced: {chosen.reason}")
        if not search:
            if configured := mcp_settings(settings, root, notices):
                servers = McpServers(
                    configured,
                    folder=str(root),
                    cache=cache_folder() / "mcp",
                    environ=os.environ,
                    offline=settings.offline,
                    notices=notices,
                )
                stack.push_async_callback(servers.aclose)
                tools += await servers.tools()
            instructions = Instructions(environment, user_folder())
            await instructions.load()
            module = CodingAgent(prompts, instructions)
            if not settings.offline and importlib.util.find_spec("markdownify"):
                tools.append(fetch_tool(prompts, lambda: permissions.rules))
        new_id = session_id or store.new_session_id()
        delegation = Delegation(
            prompts,
            tools,
            folder=store.journal_path(new_id).parent / "agents",
            secrets=_secrets(os.environ),
            price_of=registry.price_of,
            window_of=registry.window_of,
        )
        if not search:
            tools += [todo_tool(prompts), delegate_tool(prompts, delegation.spawn)]
        tools = _chosen([*tools, *more_tools], task.tools if task else ())
        if settings.plan_gate and not search:
            tools.append(plan_tool(prompts))
        if settings.hooks:
            commands = UserHooks(settings.hooks, str(root), os.environ)
            stack.push_async_callback(commands.aclose)
            hooks, critics = [*hooks, commands], [*critics, commands]
            if not search:
                instructions.add(await commands.at_start(new_id))
        if settings.critic:
            judge = await asyncio.to_thread(_connect, settings.critic, settings)
            stack.push_async_callback(judge.aclose)
            critics = [*critics, ModelCritic(judge, prompts.get("critic"))]
        permissions = _permissions(settings, chosen_mode, ask, root, tools)
        tool_registry = Registry(
            tools,
            permissions,
            middleware=_middleware(settings),
            seed=new_id,
        )
        if settings.plan_gate and not search:
            hooks = [*hooks, PlanGate(tool_registry.purpose)]
        journal = Journal(store.journal_path(new_id), secrets=_secrets(os.environ))
        stack.callback(journal.close)
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
            hooks=[*hooks, Trace(journal.path.parent), *_telemetry(settings, stack, notices)],
            critics=critics,
            preflight=_looking(task, state, environment, tools),
            limits=_limits(settings, task or Task(""), state.limits),
            retry=RetryConfig(attempts=settings.retries + 1),
            price_of=registry.price_of,
            window_of=registry.window_of,
            check=verify,
            sampling=Sampling(
                max_tokens=settings.max_output_tokens, temperature=settings.temperature
            ),
            fallbacks=[
                functools.partial(_connect, fallback, settings) for fallback in settings.fallback
            ],
            connect=functools.partial(_connect, settings=settings),
            state=state,
            copies=functools.partial(copied, root, wanted=_LEVELS[settings.sandbox])
            if search and place == "host"
            else None,
            recorder=recorded,
            rules=rules,
            processors=processors,
            memory=memory_named(settings.context.memory),
        )
        agent.notices = notices
        delegation.agent = agent
        try:
            yield agent
        finally:
            await agent.client.aclose()


def _middleware(settings: Settings) -> list[Middleware]:
    """A cached answer takes no turn of a rate."""
    cache: list[Middleware] = [Cache()] if settings.tool_cache else []
    return [*cache, *(RateLimit([name], rate) for name, rate in settings.tool_rates.items())]


def _telemetry(settings: Settings, stack: AsyncExitStack, notices: list[str]) -> list[Hook]:
    """Spans for OpenTelemetry, where the environment says where to send them."""
    wanted = any(os.environ.get(name) for name in _TELEMETRY)
    if not wanted or settings.offline or os.environ.get("OTEL_SDK_DISABLED") == "true":
        return []
    try:
        from agentcli.session.spans import Spans, exporting
    except ImportError:
        notices.append("no spans are sent: pip install 'agentcli[otel]'")
        return []
    spans = Spans(exporting())
    stack.push_async_callback(asyncio.to_thread, spans.close)
    return [spans]


def read_recording(path: Path) -> list[ChatResponse]:
    """The model's answers in a session's journal, in their order.

    Raises:
        JournalError: it cannot be read.
    """
    return [
        ChatResponse(event.message, event.finish_reason, event.usage)
        for event in read_events(path)
        if isinstance(event, ModelAnswered)
    ]


def mcp_settings(
    settings: Settings, root: Path, notices: list[str]
) -> dict[str, McpServerSettings]:
    """The MCP servers of the settings, and of the project where it is trusted."""
    servers = dict(settings.mcp.servers)
    if (root / PROJECT_SERVERS).exists():
        if is_trusted(root):
            return project_servers(root) | servers
        notices.append(
            f"{PROJECT_SERVERS} is left out: this folder is not trusted (agentcli trust)"
        )
    return servers


def _environment(place: str, root: Path, settings: Settings) -> HostEnvironment | SshEnvironment:
    wanted, network = _LEVELS[settings.sandbox], settings.commands_network
    if place == "host":
        return HostEnvironment(root, wanted=wanted, network=network, domains=settings.domains)
    if settings.offline and place.startswith("ssh:"):
        raise ConfigError(
            f"offline: {place} is another machine", hint="Leave out --offline, or use --env host"
        )
    from agentcli.environments.choose import choose

    config = settings.ssh_config or ""
    return choose(
        place,
        root,
        wanted=wanted,
        network=network,
        domains=settings.domains,
        ssh_config=config,
    )


def _permissions(
    settings: Settings, mode: Mode, ask: Ask | None, root: Path, tools: Sequence[Tool]
) -> ModePermissions:
    """Rules of all layers and those saved for this project; ConfigError: one is not sound."""
    listed = settings.permissions
    saved = RuleFile(user_folder(), str(root))
    rules = parse_rules(listed.allow, listed.ask, listed.deny) + saved.read()
    check_rules(rules, [tool.spec for tool in tools])
    return ModePermissions(mode, ask, rules=rules, root=str(root), save=saved.add)


async def _started(environment: Environment, *, already: bool) -> None:
    if not already:
        await environment.start()


def copies_of(
    settings: Settings, root: Path
) -> Callable[[], AbstractAsyncContextManager[CopiedWorkspace]]:
    """Opens copies of a workspace that stand in its place, as ``in_place`` does."""
    return functools.partial(
        in_place,
        root,
        wanted=_LEVELS[settings.sandbox],
        network=settings.commands_network,
        domains=settings.domains,
    )


def _connect(name: str, settings: Settings) -> LLMClient:
    return registry.connect(name, settings, read_recording=read_recording)


def _looking(
    task: Task | None, state: AgentState, environment: Environment, tools: Sequence[Tool]
) -> Preflight | None:
    """What to look at before the first step; a session that goes on has a task already."""
    if task is None:
        return None
    task = replace(task, instruction=task.instruction or state.task)
    return functools.partial(look, task, environment, [tool.spec for tool in tools])


def _check_session(state: AgentState, root: Path) -> None:
    if state.session_id and state.workspace != str(root):
        raise ConfigError(
            f"session {state.session_id} belongs to {state.workspace}, not to {root}",
            hint=f"Add --workspace {state.workspace}",
        )


def _chosen(tools: list[Tool], wanted: Collection[str]) -> list[Tool]:
    known = {tool.spec.name for tool in tools}
    if unknown := sorted(set(wanted) - known):
        raise TaskError(
            f"unknown tool {', '.join(unknown)}", hint=f"There are: {', '.join(sorted(known))}"
        )
    return [tool for tool in tools if not wanted or tool.spec.name in wanted]


def _limits(settings: Settings, task: Task, before: Mapping[str, float]) -> RunLimits:
    """The task's limits, else those its session was begun with, else the settings'."""
    budget = task.budget
    tokens, calls = before.get("tokens"), before.get("tool_calls")
    return RunLimits(
        max_steps=task.max_steps or int(before.get("max_steps", settings.max_steps)),
        time_s=budget.time_s or before.get("time_s", settings.timeout_s),
        step_time_s=settings.step_timeout_s,
        silence_s=settings.request_timeout_s,
        tokens=budget.tokens or (int(tokens) if tokens else settings.budget_tokens),
        cost_usd=budget.cost or before.get("cost_usd", settings.max_cost),
        tool_calls=budget.tool_calls or (int(calls) if calls else None),
    )


def _context(
    chosen: ContextSettings, prompts: Prompts, *, small: bool
) -> tuple[ContextRules, tuple[Processor, ...]]:
    """How conversations are made shorter; a ``small`` model is not trusted with a summary."""
    rules = ContextRules(**chosen.model_dump(exclude={"processors", "memory"}))
    if chosen.processors is not None:
        return rules, processors_named(chosen.processors, prompts)
    names = [name for name in STANDARD if not (small and name.startswith("summarize"))]
    return rules, processors_named(names, prompts)


def _tool_limits(settings: Settings) -> tuple[Limits, Limits]:
    """For commands and for checks."""
    command = of_settings(settings.limits)
    return command, replace(command, time_s=settings.limits.check_time_s)


def _secrets(environ: os._Environ[str]) -> list[str]:
    """Values that must not reach the journal, the longest first."""
    found = {value for name, value in environ.items() if _SECRET.search(name.upper())}
    return sorted(found, key=len, reverse=True)
