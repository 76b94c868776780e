"""Reads a session's history from its journal: the end at once, the rest in the background.

The journal is what the user saw; the model's history may have been shortened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentcli.agent.events import Event
from agentcli.errors import AgentCLIError
from agentcli.session.journal import line_mark, open_regular, parse_line
from agentcli.tui.entries import Entry
from agentcli.tui.presenter import entries_of

_TAIL_BYTES = 128 * 1024
_TASK_GIVEN, _REWOUND = line_mark("task_given"), line_mark("rewound")


@dataclass(frozen=True, slots=True)
class Past:
    """The ``entries`` of a journal from byte offset ``start`` on; 0 means all of them."""

    entries: list[Entry]
    start: int


def tail(path: Path, size: int = _TAIL_BYTES) -> Past:
    """The last turns of a journal, about ``size`` bytes of it, or more if the last one is longer.

    Raises:
        OSError: the journal cannot be read.
    """
    with open_regular(path) as file:
        end = file.seek(0, 2)
        start = max(0, end - size)
        file.seek(start)
        data = file.read()
    if start and _REWOUND in data:
        return tail(path, end)  # a rewind may remove entries from long before
    if start:
        skipped = data.find(b"\n") + 1
        start, data = start + skipped, data[skipped:]
        # Start at the beginning of a turn: calls of half a turn would have lost their results.
        if (turn := data.find(_TASK_GIVEN)) < 0:
            return tail(path, 8 * size)
        line = data.rfind(b"\n", 0, turn) + 1
        start, data = start + line, data[line:]
    return Past(entries_of(_events(data, path)), start)


def before(path: Path, end: int) -> list[Entry]:
    """The entries of a journal up to byte ``end``.

    Raises:
        OSError: the journal cannot be read.
    """
    with open_regular(path) as file:
        return entries_of(_events(file.read(end), path))


def _events(data: bytes, path: Path) -> Iterator[Event]:
    """The events of complete lines. Invalid lines are skipped; opening the agent reports them."""
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            yield parse_line(line, str(path))
        except AgentCLIError:
            continue
