"""The tools of a session: built-in ones, those of MCP servers and plugins, sub-agents."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from agentcli.agent.kernel import Agent
from agentcli.delegation import Delegation
from agentcli.errors import TaskError
from agentcli.folders import cache_folder, user_folder
from agentcli.llm import registry
from agentcli.messages import ToolCall
from agentcli.prompts import Prompts
from agentcli.sandbox.limits import Limits
from agentcli.settings import McpServerSettings, Settings
from agentcli.skills import PROJECT_FOLDERS, Skill, found_in
from agentcli.tools.apply_patch import apply_patch_tool
from agentcli.tools.approval import Ask
from agentcli.tools.background import Jobs
from agentcli.tools.base import PLAN, Tool
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.calculator import calculator_tool
from agentcli.tools.decline import decline_tool
from agentcli.tools.delegate import delegate_tool
from agentcli.tools.fetch import fetch_tool
from agentcli.tools.jobs import jobs_tool
from agentcli.tools.mcp.servers import (
    PROJECT_SERVERS,
    RESOURCE_TOOL,
    McpServers,
    project_servers,
)
from agentcli.tools.middleware import Cache, Middleware, RateLimit
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from agentcli.tools.rule_file import RuleFile
from agentcli.tools.rules import Rules, check_rules, parse_rules
from agentcli.tools.skill import listed, skill_tool
from agentcli.tools.todo import todo_tool
from agentcli.trust import is_trusted
from agentcli.wiring.limits import secrets
from agentcli.wiring.plugged import plugin_tools

_LEARNT = ("grep", "list_dir", "read_file", "run_tests", "search_replace")
"""The tools that the embedded model was trained with, besides calculator and decline."""


def learnt_tools(command: Limits, check: Limits) -> list[Tool]:
    """The tools of a small model, which knows them from training and needs no descriptions."""
    builtin = builtin_tools(command=command, check=check)
    learnt = [tool for tool in builtin if tool.spec.name in _LEARNT]
    return [*learnt, calculator_tool(), decline_tool()]


_OPTIONAL = frozenset({"apply_patch"})
"""Offered only if a task or the settings name them."""


class Toolbox:
    """Collects the tools of a session, and connects those that need the agent with it."""

    def __init__(self, settings: Settings, root: Path, prompts: Prompts, folder: Path) -> None:
        """``folder`` is the session's folder, which holds the journals of its sub-agents."""
        self.jobs: Jobs | None = None
        """Background commands, if the model has the tools for them."""
        self.servers: McpServers | None = None
        """The MCP servers, if any are configured."""
        self.instructions = ""
        """What the tools add to the system prompt."""
        self._agent: Agent | None = None
        self._delegation: Delegation | None = None
        self._settings = settings
        self._root = root
        self._prompts = prompts
        self._folder = folder

    async def gather(
        self, command: Limits, check: Limits, stack: AsyncExitStack, notices: list[str]
    ) -> list[Tool]:
        """All tools. ``stack`` closes MCP servers; their failures go to ``notices``."""
        settings, prompts = self._settings, self._prompts
        tools = builtin_tools(prompts, command=command, check=check)
        parts: list[str] = []
        if configured := mcp_settings(settings, self._root, notices):
            self.servers = McpServers(
                configured,
                folder=str(self._root),
                cache=cache_folder() / "mcp",
                environ=os.environ,
                offline=settings.offline,
                notices=notices,
            )
            stack.push_async_callback(self.servers.aclose)
            tools += await self.servers.tools()
            if said := self.servers.instructions:
                parts.append(prompts.render("mcp", {"instructions": said}))
        if not settings.offline and importlib.util.find_spec("markdownify"):
            tools.append(fetch_tool(prompts, self._rules))
        if skills := self._found_skills(notices):
            tools.append(skill_tool(prompts, skills))
            parts.append(prompts.render("skills", {"skills": listed(skills)}))
        self.instructions = "\n\n".join(parts)
        self._delegation = Delegation(
            prompts,
            tools,
            folder=self._folder / "agents",
            secrets=secrets(settings, os.environ),
            price_of=registry.price_of,
            window_of=registry.window_of,
        )
        self.jobs = Jobs()
        stack.push_async_callback(self.jobs.aclose)
        tools += [
            todo_tool(prompts),
            delegate_tool(prompts, self._delegation.spawn),
            jobs_tool(prompts, self.jobs),
            apply_patch_tool(prompts),
        ]
        taken = {tool.spec.name for tool in tools} | {PLAN}
        return [*tools, *plugin_tools(taken, notices)]

    def _found_skills(self, notices: list[str]) -> list[Skill]:
        """The user's skills, and the project's if it is trusted."""
        own = user_folder() / "skills"
        folders = [own] if own.is_dir() else []
        brought = [path for name in PROJECT_FOLDERS if (path := self._root / name).is_dir()]
        if brought and is_trusted(self._root):
            folders += brought
        elif brought:
            what = ", ".join(str(folder.relative_to(self._root)) for folder in brought)
            notices.append(f"{what} is left out: this folder is not trusted (agentcli trust)")
        return found_in(folders, notices)

    def mentioned(self, text: str) -> list[ToolCall]:
        """Calls that read the resources a task mentions, if the agent has the tool for that."""
        if self.servers is None or self._agent is None:
            return []
        if all(spec.name != RESOURCE_TOOL for spec in self._agent.tools.specs):
            return []
        return self.servers.mentioned(text)

    def bind(self, agent: Agent) -> None:
        """Connect the tools with this agent: sub-agents work for it, under its rules."""
        self._agent = agent
        if self._delegation is not None:
            self._delegation.agent = agent

    def _rules(self) -> Rules:
        permissions = self._agent.tools.permissions if self._agent else None
        return permissions.rules if isinstance(permissions, ModePermissions) else Rules()


def register(
    tools: Sequence[Tool],
    settings: Settings,
    *,
    mode: Mode,
    ask: Ask | None,
    root: Path,
    confined: bool,
    seed: str,
) -> Registry:
    """The registry of a session. ``confined``: its commands run in a sandbox.

    Raises:
        ConfigError: a tool or a rule is invalid.
    """
    return Registry(
        tools,
        _permissions(settings, mode, ask, root, tools, confined=confined),
        middleware=_middleware(settings),
        seed=seed,
    )


def chosen(tools: list[Tool], wanted: Collection[str], extra: Collection[str] = ()) -> list[Tool]:
    """The ``wanted`` tools (if none is, all but the optional ones) and the ``extra`` ones.

    Raises:
        TaskError: there is no tool with a wanted name.
    """
    known = {tool.spec.name for tool in tools}
    if unknown := sorted(set(wanted) - known):
        raise TaskError(
            f"unknown tool {', '.join(unknown)}", hint=f"There are: {', '.join(sorted(known))}"
        )
    offered = set(wanted) or known - _OPTIONAL
    return [tool for tool in tools if tool.spec.name in offered.union(extra)]


def mcp_settings(
    settings: Settings, root: Path, notices: list[str]
) -> dict[str, McpServerSettings]:
    """The MCP servers of the settings, and of the project if it is trusted."""
    servers = dict(settings.mcp.servers)
    if (root / PROJECT_SERVERS).exists():
        if is_trusted(root):
            return project_servers(root, notices) | servers
        notices.append(
            f"{PROJECT_SERVERS} is left out: this folder is not trusted (agentcli trust)"
        )
    return servers


def _permissions(
    settings: Settings,
    mode: Mode,
    ask: Ask | None,
    root: Path,
    tools: Sequence[Tool],
    *,
    confined: bool,
) -> ModePermissions:
    """The rules of the settings and those saved for this project; raises ConfigError."""
    listed = settings.permissions
    saved = RuleFile(user_folder(), str(root))
    rules = parse_rules(listed.allow, listed.ask, listed.deny)
    given = saved.read()
    check_rules(rules + given, [tool.spec for tool in tools])
    return ModePermissions(
        mode,
        ask,
        rules=rules,
        root=str(root),
        confined=confined,
        given=given.allow,
        saved=saved,
    )


def _middleware(settings: Settings) -> list[Middleware]:
    # The cache comes first, so that cached results do not count towards a rate limit.
    cache: list[Middleware] = [Cache()] if settings.tool_cache else []
    return [*cache, *(RateLimit([name], rate) for name, rate in settings.tool_rates.items())]
