"""The trace of a session, beside its journal: ``manifest.json`` and ``steps.jsonl``.

Both are readings of ``events.jsonl``, written as the run goes for programs that follow it. A run
that was killed leaves a manifest that says ``running``; whoever sees the session next (``sessions
list``, a resume, ``trace``) reads the journal again and writes what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentcli.agent.events import Event, RunFinished, SessionStarted, StepFinished
from agentcli.agent.hooks import Hook
from agentcli.agent.state import AgentState
from agentcli.errors import JournalError
from agentcli.session.journal import FILE_NAME, read_timed
from agentcli.session.steps import Steps, steps_of
from agentcli.session.store import Condition, SessionInfo

MANIFEST = "manifest.json"
STEPS = "steps.jsonl"
EVERY_S = 1.0
"""Not more often than this while a run goes: to read and write it anew costs some milliseconds."""


class Trace(Hook):
    """Writes the trace of a session as it goes, from what its journal holds by then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps: Steps | None = None
        self._place = 0
        self._followed = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._following = threading.Lock()

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Catch up with the journal where a run begins or ends, and soon after each step."""
        match event:
            case SessionStarted() | RunFinished():
                if self._later is not None:
                    self._later.cancel()
                self._later, self._followed = None, time.monotonic()
                # Beside, for a disk that is busy must not keep a key from being shown.
                running = isinstance(event, SessionStarted)
                await asyncio.to_thread(self._follow, running)
            case StepFinished() if self._later is None:
                loop = asyncio.get_running_loop()
                self._later = loop.call_at(self._followed + EVERY_S, self._catch_up)

    def _catch_up(self) -> None:
        self._later, self._followed = None, time.monotonic()
        asyncio.get_running_loop().run_in_executor(None, self._try_to_follow)

    def _try_to_follow(self) -> None:
        with contextlib.suppress(JournalError, OSError):  # at the run's end it is said
            self._follow()

    def _follow(self, running: bool = True) -> None:
        with self._following:
            self._read_on(running)

    def _read_on(self, running: bool) -> None:
        journal = self._folder / FILE_NAME
        if self._steps is None:
            self._steps = Steps()
            _new(self._folder / STEPS, b"")
        ended: list[dict[str, Any]] = []
        size = journal.stat().st_size
        for when, event in read_timed(journal, self._place):
            ended += self._steps.add(event, when)
        self._place = size
        if ended:
            with open(self._folder / STEPS, "ab") as file:
                file.write(b"".join(map(_line, ended)))
        # An end that the journal could not take is one all the same: "interrupted".
        manifest = self._steps.manifest(running=running)
        _new(self._folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def rewrite(folder: Path) -> tuple[Steps, list[dict[str, Any]]]:
    """Make the trace of a session that is not open anew from its journal.

    Raises:
        JournalError: it cannot be read.
        OSError: the trace cannot be written.
    """
    steps, ended = steps_of(read_timed(folder / FILE_NAME))
    _new(folder / STEPS, b"".join(map(_line, ended)))
    _new(folder / MANIFEST, json.dumps(steps.manifest(), indent=2).encode() + b"\n")
    return steps, ended


def close_interrupted(sessions: Iterable[SessionInfo]) -> None:
    """Write what is true where a manifest still says that a run goes on that does not."""
    for session in sessions:
        if session.condition is Condition.RUNNING or _status(session.path.parent) != "running":
            continue
        with contextlib.suppress(JournalError, OSError):
            rewrite(session.path.parent)


def _status(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _new(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.replace(temporary, path)
