"""The table of the chat's built-in slash commands, and access to the user's own.

``agentcli.slash_commands`` reads the user's commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from agentcli import slash_commands
from agentcli.slash_commands import Command, split
from agentcli.tools.mcp.references import prompts_of

__all__ = ["BUILTIN", "ELSEWHERE", "Command", "is_command", "own_commands", "prompts_of", "split"]

BUILTIN = (
    Command("help", "keys and commands"),
    Command("model", "switch to another model", "[PROVIDER:NAME]"),
    Command("mode", "choose what needs your approval", "[ask, edits, auto, plan]"),
    Command("permissions", "show the rules for approvals, and take back those you gave"),
    Command("compact", "shorten the conversation so far", "[preview]"),
    Command("undo", "undo the last task, files and messages"),
    Command("redo", "redo what was undone"),
    Command("fork", "continue in a copy of this session"),
    Command("resume", "resume another session", "[ID]"),
    Command("new", "start a new session"),
    Command("diff", "show this session's changes, or all since git's last commit", "[all]"),
    Command("commit", "draft a message for git, then commit what was changed", "[MESSAGE]"),
    Command("jobs", "list, show or stop background commands", "[ID, stop ID]"),
    Command("cost", "tokens and money so far"),
    Command("trace", "show where this session is recorded"),
    Command("tools", "list the model's tools"),
    Command("mcp", "list MCP servers and their state"),
    Command("init", "have the model write AGENTS.md for this project", "[WHAT ELSE]"),
    Command("theme", "choose colours", "[dark, light, contrast]"),
    Command("copy", "copy the last answer"),
    Command("export", "write this session to a Markdown file", "[FILE]"),
    Command("quit", "quit"),
)

ELSEWHERE = {"clear": "new", "exit": "quit", "status": "cost", "usage": "cost"}
"""Aliases from other assistants; a user's command of the same name takes precedence."""

_PROMPT = re.compile(r"/[\w.-]+:\S")


def is_command(text: str) -> bool:
    """Whether a text is a slash command or ``/server:prompt`` rather than, say, a path."""
    return slash_commands.is_command(text) or _PROMPT.match(text) is not None


def own_commands(folders: Iterable[Path]) -> list[Command]:
    """The user's commands, except those named like a built-in. Later folders take precedence."""
    return slash_commands.own_commands(folders, taken={command.name for command in BUILTIN})
