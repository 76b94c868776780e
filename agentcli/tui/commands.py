"""The commands behind ``/``: the table of those that are built in, and the user's own.

A user's command is a Markdown file, ``commands/NAME.md`` in the configuration folder or in the
project's ``.agentcli``; its text is sent with ``$ARGUMENTS`` replaced by what was typed after the
name. Front matter may hold a ``description``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agentcli.text import one_line

_MAX_BYTES = 100_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_FRONT = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_PLACE = "$ARGUMENTS"


@dataclass(frozen=True, slots=True)
class Command:
    """``argument`` says what may follow the name; ``text`` is what a user's own command sends."""

    name: str
    summary: str
    argument: str = ""
    text: str = ""

    def filled(self, argument: str) -> str:
        """The text to send."""
        if _PLACE in self.text:
            return self.text.replace(_PLACE, argument)
        return f"{self.text}\n\n{argument}" if argument else self.text


BUILTIN = (
    Command("help", "keys and commands"),
    Command("model", "let another model answer", "[PROVIDER:NAME]"),
    Command("mode", "how much may happen without asking", "[ask, edits, auto, plan]"),
    Command("compact", "shorten the conversation so far", "[preview]"),
    Command("undo", "take back the last task, files and messages"),
    Command("redo", "bring back what was undone"),
    Command("fork", "go on in a copy of this session"),
    Command("resume", "go on with another session", "[ID]"),
    Command("new", "begin a new session"),
    Command("diff", "what was changed in this session"),
    Command("cost", "tokens and money so far"),
    Command("trace", "where the record of this session is"),
    Command("tools", "the tools that the model has"),
    Command("mcp", "servers of tools, and whether they answer"),
    Command("theme", "colours", "[dark, light, contrast]"),
    Command("copy", "copy the last answer"),
    Command("export", "write this session to a Markdown file", "[FILE]"),
    Command("quit", "leave"),
)


def split(line: str) -> tuple[str, str]:
    """(name, argument) of a line that begins with a slash."""
    name, _, argument = line[1:].strip().partition(" ")
    return name, argument.strip()


def is_command(text: str) -> bool:
    """Whether a text is meant as a command and not, say, as a path."""
    return text.startswith("/") and _NAME.fullmatch(split(text.split("\n")[0])[0]) is not None


def own_commands(folders: Iterable[Path]) -> list[Command]:
    """Commands in folders that may not exist; a later folder goes before an earlier one."""
    found: dict[str, Command] = {}
    for folder in folders:
        try:
            files = sorted(path for path in folder.glob("*.md") if path.is_file())
        except OSError:
            continue
        for path in files:
            command = _read(path)
            if command is not None:
                found[command.name] = command
    return list(found.values())


def _read(path: Path) -> Command | None:
    """One file; what cannot be read, or hides a built-in command, is left out."""
    name = path.stem.lower()
    taken = any(command.name == name for command in BUILTIN)
    if taken or not _NAME.fullmatch(name):
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    summary = ""
    if match := _FRONT.match(text):
        text = text[match.end() :]
        for line in match[1].splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "description":
                summary = value.strip().strip("\"'")
    text = text.strip()
    return Command(name, one_line(summary or text, 60), "[TEXT]", text) if text else None
