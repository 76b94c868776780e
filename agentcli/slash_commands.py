"""A user's own commands behind ``/``: texts in Markdown files, for chat, editors and ``run -p``.

One is ``commands/NAME.md`` in the configuration folder or, where the project is trusted, in its
``.agentcli``; its text is sent with ``$ARGUMENTS`` replaced by what was typed after the name, or
with that below it. Front matter may hold a ``description``. A skill is a command as well, unless
there is one of its name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentcli.config import nearest, user_folder
from agentcli.errors import ConfigError, UsageError
from agentcli.skills import PROJECT_FOLDERS, SKILLS, found_in
from agentcli.text import one_line
from agentcli.trust import is_trusted

_MAX_BYTES = 100_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CALL = re.compile(rf"{_NAME.pattern}|[\w.-]+:\S+")
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


def split(line: str) -> tuple[str, str]:
    """(name, argument) of a line that begins with a slash."""
    name, _, argument = line[1:].strip().partition(" ")
    return name, argument.strip()


def is_command(text: str) -> bool:
    """Whether a text is meant as a command or an MCP server's prompt and not, say, as a path."""
    begins = text.startswith("/") and not text[1:2].isspace()
    return begins and _CALL.fullmatch(split(text.split("\n")[0])[0]) is not None


def command_folders(workspace: Path) -> tuple[Path, ...]:
    """Where commands and skills for a workspace are; a project's own only where it is trusted."""
    user, project = user_folder(), workspace / ".agentcli"
    skills: tuple[Path, ...] = (user / SKILLS,)
    commands: tuple[Path, ...] = (user / "commands",)
    if is_trusted(workspace):  # else they are texts that somebody else may have written
        skills = (*skills, *(workspace / name for name in PROJECT_FOLDERS))
        commands = (*commands, project / "commands")
    return *skills, *commands


def own_commands(folders: Iterable[Path], taken: Iterable[str] = ()) -> list[Command]:
    """Commands in folders that may not exist; a later folder goes before an earlier one.

    Those that cannot be read, or whose name is ``taken``, are left out.
    """
    found: dict[str, Command] = {}
    for folder in folders:
        read = _skills if folder.name == SKILLS else _commands
        found |= {command.name: command for command in read(folder) if command.name not in taken}
    return list(found.values())


def expanded(text: str, folders: Iterable[Path]) -> str:
    """The text that ``/name arguments`` stands for; what is no command stays as it is.

    Raises:
        UsageError: it looks like a command, and there is none of that name.
    """
    if not is_command(text):
        return text
    first, _, below = text.partition("\n")
    name, argument = split(first)
    commands = {command.name: command for command in own_commands(folders)}
    if command := commands.get(name):
        return command.filled(f"{argument}\n{below}".strip())
    if ":" in name or Path(f"/{name}").exists():
        return text
    there = nearest(name, list(commands)) if commands else "There are none"
    hint = f"{there}. Those of a project are read once you trust it: agentcli trust"
    raise UsageError(f"there is no command /{name}", hint=hint)


def _skills(folder: Path) -> Iterator[Command]:
    for skill in found_in([folder], []):  # what is wrong with others is told with the session
        with contextlib.suppress(ConfigError):  # it went just now
            yield Command(skill.name, one_line(skill.description, 60), "[TEXT]", skill.told())


def _commands(folder: Path) -> Iterator[Command]:
    try:
        files = sorted(path for path in folder.glob("*.md") if path.is_file())
    except OSError:
        return
    for path in files:
        if (command := _read(path)) is not None:
            yield command


def _read(path: Path) -> Command | None:
    name = path.stem.lower()
    if not _NAME.fullmatch(name):
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
