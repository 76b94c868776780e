"""Full-text search in all journals. Raw lines are filtered first, so that few are parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentcli.agent.events import Event, MessageAdded, ModelAnswered, ToolFinished
from agentcli.errors import JournalError
from agentcli.session.journal import line_mark, open_regular, parse_line
from agentcli.session.store import list_sessions

_STEP = line_mark("step_started")
_AROUND = 40
_MOST = 5
"""The most hits per session."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One occurrence. ``step`` is 0 before the first step; ``who`` is a role or a tool's name."""

    session: str
    step: int
    who: str
    text: str


def find_text(text: str, workspace: Path | None = None) -> list[Hit]:
    """Find a text, ignoring case; newest sessions first, at most 5 hits in each."""
    needle = json.dumps(text.lower(), ensure_ascii=False)[1:-1]
    found: list[Hit] = []
    for session in list_sessions(workspace):
        hits = _hits(session.id, session.path, text.lower(), needle)
        found += [hit for hit, _ in zip(hits, range(_MOST), strict=False)]
    return found


def _hits(session: str, path: Path, text: str, needle: str) -> Iterator[Hit]:
    step = 0
    try:
        with open_regular(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        begins = _STEP in line
        if not begins and needle not in line.decode("utf-8", "replace").lower():
            continue
        try:
            event = parse_line(line, str(path))
        except JournalError:
            continue
        if begins:
            step = getattr(event, "step", step)
            continue
        for who, said in _said(event):
            place = said.lower().find(text)
            if place >= 0:
                yield Hit(session, step, who, _excerpt(said, place, len(text)))
                break


def _said(event: Event) -> Iterator[tuple[str, str]]:
    match event:
        case MessageAdded(message):
            yield message.role.value, message.text
        case ModelAnswered(message=message):
            yield "assistant", message.text
            for call in message.calls:
                yield call.name, call.arguments
        case ToolFinished(result=result):
            yield result.name, result.content


def _excerpt(said: str, place: int, length: int) -> str:
    start, end = max(0, place - _AROUND), place + length + _AROUND
    piece = " ".join(said[start:end].split())
    return f"{'…' if start else ''}{piece}{'…' if end < len(said) else ''}"
