"""A user's own slash commands: texts in Markdown files, for chat, editors and ``run -p``.

A command is ``commands/NAME.md`` in the configuration folder or, if the project is trusted, in its
``.agentcli``. ``$ARGUMENTS`` in the text is replaced by what was typed after the name; without it,
the arguments are appended. Front matter may have a ``description``. A skill is a command too,
unless there is a command of the same name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentcli.config import nearest
from agentcli.errors import ConfigError, UsageError
from agentcli.folders import user_folder
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
    """A command. ``argument`` says what may follow the name; ``text`` is what it sends."""

    name: str
    summary: str
    argument: str = ""
    text: str = ""

    def filled(self, argument: str) -> str:
        """The text to send."""
        if _PLACE in self.text:
            return self.text.replace(_PLACE, argument)
        return f"{self.text}\n\n{argument}" if argument else self.text


def split(text: str) -> tuple[str, str]:
    """Split a text that starts with a slash into name and argument, at the first white space."""
    name, *argument = text[1:].split(maxsplit=1) or [""]
    return name, "".join(argument).strip()


def is_command(text: str) -> bool:
    """Whether a text is meant as a command or an MCP server's prompt, not for example a path."""
    begins = text.startswith("/") and not text[1:2].isspace()
    return begins and _CALL.fullmatch(split(text.split("\n")[0])[0]) is not None


def command_folders(workspace: Path) -> tuple[Path, ...]:
    """The folders of commands and skills; the project's own only if it is trusted."""
    user, project = user_folder(), workspace / ".agentcli"
    skills: tuple[Path, ...] = (user / SKILLS,)
    commands: tuple[Path, ...] = (user / "commands",)
    if is_trusted(workspace):  # otherwise someone else may have written them
        skills = (*skills, *(workspace / name for name in PROJECT_FOLDERS))
        commands = (*commands, project / "commands")
    return *skills, *commands


def own_commands(folders: Iterable[Path], taken: Iterable[str] = ()) -> list[Command]:
    """The commands in these folders, which may be missing; later folders take precedence.

    Commands that cannot be read, or whose name is ``taken``, are left out.
    """
    found: dict[str, Command] = {}
    for folder in folders:
        read = _skills if folder.name == SKILLS else _commands
        found |= {command.name: command for command in read(folder) if command.name not in taken}
    return list(found.values())


def expanded(text: str, folders: Iterable[Path]) -> str:
    """Expand ``/name arguments`` to the command's text; other texts are returned unchanged.

    Raises:
        UsageError: it looks like a command, but there is none of that name.
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
    hint = f"{there}. A project's commands are read once you trust it: agentcli trust"
    raise UsageError(f"there is no command /{name}", hint=hint)


def _skills(folder: Path) -> Iterator[Command]:
    for skill in found_in([folder], []):  # opening a session reports invalid skills
        with contextlib.suppress(ConfigError):  # deleted in the meantime
            yield Command(skill.name, one_line(skill.description, 60), "[TEXT]", skill.text())


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
