"""Completion candidates for the text before the cursor: commands after ``/``, files after ``@``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentcli.tui.commands import Command
from agentcli.tui.completion import ROWS, Candidate
from agentcli.tui.files import FileIndex
from agentcli.tui.fuzzy import best

_FILE = re.compile(r"(?:^|[\s(])@([^\s@]*)$")


def wants_files(before: str) -> bool:
    """Whether the line up to the cursor ends in a file reference."""
    return _FILE.search(before) is not None


def candidates(
    before: str, whole: str, commands: Sequence[Command], files: FileIndex
) -> tuple[list[Candidate], int]:
    """Candidates, best first, and the number of characters before the cursor they replace.

    ``before`` is the line up to the cursor, ``whole`` the entire text.
    """
    if before.startswith("/") and " " not in before and whole.startswith(before):
        by_name = {command.name: command for command in commands}
        names = best(before[1:], by_name, ROWS) if len(before) > 1 else list(by_name)
        return [_of_command(by_name[name]) for name in names], len(before)
    if match := _FILE.search(before):
        query = match[1]
        paths = best(query, files.paths, ROWS)
        return [Candidate(f"@{path}") for path in paths], len(query) + 1
    return [], 0


def _of_command(command: Command) -> Candidate:
    detail = f"{command.argument}  {command.summary}" if command.argument else command.summary
    needs_more = command.argument.startswith("[TEXT")
    return Candidate(f"/{command.name}", detail, send=not needs_more)
