"""Tools and hooks of installed packages, checked before a session gets them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from agentcli import plugins
from agentcli.agent.hooks import Hook
from agentcli.tools.base import Tool
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.soundness import check_sound


@dataclass(frozen=True, slots=True)
class Added:
    """One entry point of an installed package: ``what`` it adds, or why it does not work.

    ``kind`` is provider, tool or hook; ``package`` includes the version.
    """

    kind: str
    name: str
    package: str
    what: str
    works: bool = True


def plugin_tools(taken: Collection[str], notices: list[str]) -> list[Tool]:
    """The tools of all plugins; ``notices`` gets those that are invalid or whose name is taken."""
    names = set(taken)
    found: list[Tool] = []
    for name, value in plugins.load_all(plugins.TOOLS, notices):
        try:
            found += _tools(value, names)
        except Exception as error:
            notices.append(plugins.failure(plugins.TOOLS, name, error))
    return found


def plugin_hooks(notices: list[str]) -> list[Hook]:
    """The hooks of all plugins, created anew for each session."""
    found: list[Hook] = []
    for name, value in plugins.load_all(plugins.HOOKS, notices):
        try:
            found.append(_hook(value))
        except Exception as error:
            notices.append(plugins.failure(plugins.HOOKS, name, error))
    return found


def added() -> list[Added]:
    """Everything that installed packages add, each entry loaded and checked."""
    names = {tool.spec.name for tool in builtin_tools()}
    looks: dict[str, Callable[[str, Any], str]] = {
        plugins.PROVIDERS: _models,
        plugins.TOOLS: lambda _, value: ", ".join(one.spec.name for one in _tools(value, names)),
        plugins.HOOKS: lambda _, value: type(_hook(value)).__name__,
    }
    found: list[Added] = []
    for group, look in looks.items():
        for point in plugins.points(group):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            try:
                what, works = look(point.name, point.load()), True
            except Exception as error:
                what, works = plugins.reason(error), False
            found.append(Added(plugins.kind(group), point.name, package, what, works))
    return found


def _models(name: str, value: Any) -> str:
    if not callable(value):
        raise TypeError(f"{type(value).__name__} cannot be called with a model and settings")
    return f"models named {name}:NAME"


def _hook(value: Any) -> Hook:
    hook = value if isinstance(value, Hook) else value()
    if not isinstance(hook, Hook):
        raise TypeError(f"{type(hook).__name__} is not an agentcli.Hook")
    return hook


def _tools(value: Any, names: set[str]) -> Iterable[Tool]:
    """The tools of a plugin, once each has been checked; adds their names to ``names``."""
    value = value() if callable(value) and not isinstance(value, Tool) else value
    for tool in [value] if isinstance(value, Tool) else list(value):
        if not isinstance(tool, Tool):
            raise TypeError(f"{type(tool).__name__} is not an agentcli tool")
        check_sound(tool)
        if tool.spec.name in names:
            raise ValueError(f"there is a tool {tool.spec.name} already")
        names.add(tool.spec.name)
        yield tool
