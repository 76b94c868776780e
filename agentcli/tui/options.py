"""The options that the command line passes to the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentcli.task import Budget


@dataclass(frozen=True)
class Options:
    """Options of the screen.

    ``history`` is the file of earlier prompts; ``prompt`` is sent at once; ``command_folders``
    hold the user's own commands; ``pick`` first lets the user choose a session; ``budget`` replaces
    the one that a resumed session had; ``notices`` are shown at the start; ``remember`` saves a
    setting by its key or raises ConfigError.
    """

    workspace: Path
    history: Path
    model: str | None = None
    mode: str = "ask"
    session_id: str | None = None
    theme: str = "dark"
    vim: bool = False
    prompt: str = ""
    command_folders: tuple[Path, ...] = ()
    pick: bool = False
    budget: Budget | None = None
    notify: bool = True
    mouse: bool = True
    notices: tuple[str, ...] = ()
    remember: Callable[[str, str], None] = lambda key, value: None
