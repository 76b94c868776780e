"""Plugins: what installed packages add to agentcli through entry points.

    agentcli.providers    NAME = "package:connect"    (model, settings) → LLMClient
    agentcli.tools        NAME = "package:tool"       a Tool, several, or () → those
    agentcli.hooks        NAME = "package:MyHook"     () → Hook, for each session

They are looked up when needed, which takes 1 ms if no package has any. A plugin that cannot be
loaded is reported in one line. Plugins run with the user's rights, outside the sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentcli.errors import ConfigError
from agentcli.text import one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PROVIDERS, TOOLS, HOOKS = "agentcli.providers", "agentcli.tools", "agentcli.hooks"

_MARK = b"[agentcli."


def points(group: str) -> list[EntryPoint]:
    """The entry points of a group, sorted by name; nothing is loaded."""
    if not _any_there(tuple(sys.path)):
        return []
    from importlib.metadata import entry_points

    return sorted(entry_points(group=group), key=lambda point: point.name)


def names(group: str) -> list[str]:
    """The names in a group, sorted; nothing is loaded."""
    return sorted({point.name for point in points(group)})


def load(group: str, name: str) -> Any:
    """Load a plugin by name; None if there is no such plugin.

    Raises:
        ConfigError: it cannot be loaded; the message names its package.
    """
    point = next((point for point in points(group) if point.name == name), None)
    return None if point is None else _loaded(point)


def load_all(group: str, notices: list[str]) -> Iterator[tuple[str, Any]]:
    """Load all plugins of a group by name; failures are added to ``notices``."""
    for point in points(group):
        try:
            found = _loaded(point)
        except ConfigError as error:
            notices.append(error.message)
        else:
            yield point.name, found


def failure(group: str, name: str, error: Exception) -> str:
    """A line that says what is wrong with a plugin."""
    return f"the {kind(group)} {name} of an installed package is left out: {reason(error)}"


def kind(group: str) -> str:
    """``provider``, ``tool`` or ``hook``."""
    return group.removeprefix("agentcli.").removesuffix("s")


def reason(error: Exception) -> str:
    """An exception in one line."""
    return one_line(f"{type(error).__name__}: {error}", 300)


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(
            failure(point.group, point.name, error),
            hint=f"Fix or uninstall {point.dist.name if point.dist else point.value}",
        ) from error


@functools.cache
def _any_there(places: tuple[str, ...]) -> bool:
    """Whether any package has entry points for agentcli; much faster than asking for them."""
    for folder in map(Path, dict.fromkeys(places)):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError):
                        if _MARK in (folder / entry.name / "entry_points.txt").read_bytes():
                            return True
    return False
