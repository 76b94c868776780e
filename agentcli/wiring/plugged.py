"""Tools and hooks that installed packages bring along, checked before a session has them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from agentcli import plugins
from agentcli.agent.hooks import Hook
from agentcli.tools.base import Tool
from agentcli.tools.soundness import check_sound


def plugin_tools(taken: Collection[str], notices: list[str]) -> list[Tool]:
    """The tools of all plugins; ``notices`` tells of those that are not sound or hide another."""
    names = set(taken)
    found: list[Tool] = []
    for name, value in plugins.load_all(plugins.TOOLS, notices):
        try:
            for tool in _tools(value):
                check_sound(tool)
                if tool.spec.name in names:
                    raise ValueError(f"there is a tool {tool.spec.name} already")
                names.add(tool.spec.name)
                found.append(tool)
        except Exception as error:
            notices.append(plugins.failure(plugins.TOOLS, name, error))
    return found


def plugin_hooks(notices: list[str]) -> list[Hook]:
    """The hooks of all plugins, a new one for each session."""
    found: list[Hook] = []
    for name, value in plugins.load_all(plugins.HOOKS, notices):
        try:
            hook = value if isinstance(value, Hook) else value()
            if not isinstance(hook, Hook):
                raise TypeError(f"{type(hook).__name__} is no agentcli.Hook")
            found.append(hook)
        except Exception as error:
            notices.append(plugins.failure(plugins.HOOKS, name, error))
    return found


def _tools(value: Any) -> Iterable[Tool]:
    value = value() if callable(value) and not isinstance(value, Tool) else value
    tools = [value] if isinstance(value, Tool) else list(value)
    for tool in tools:
        if not isinstance(tool, Tool):
            raise TypeError(f"{type(tool).__name__} is no agentcli tool")
    return tools
