"""The trace of a session, next to its journal: ``manifest.json`` and ``steps.jsonl``.

Both are derived from ``events.jsonl`` and updated during a run, for programs that follow it. A
killed run leaves a manifest that says ``running``; the next command that sees the session
(``sessions list``, a resume, ``trace``) reads the journal again and corrects it.

The manifest also records how many bytes of the journal and of ``steps.jsonl`` it covers. If both
files still have these sizes, a resumed session continues from there; otherwise the whole journal is
read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentcli.agent.events import Event, RunFinished, SessionStarted, StepFinished
from agentcli.agent.hooks import Hook
from agentcli.agent.state import AgentState
from agentcli.errors import JournalError
from agentcli.session.journal import FILE_NAME, Journal, read_timed
from agentcli.session.steps import Steps, steps_of
from agentcli.session.store import Condition, SessionInfo

MANIFEST = "manifest.json"
STEPS = "steps.jsonl"
EVERY_S = 0.25
"""The shortest interval between updates; short enough that little is left for the end of a run."""

_ABOUT = "about_bytes"
"""Key for the bytes of the journal and of the steps that a manifest covers; absent in mid-step."""

_log = logging.getLogger("agentcli.trace")


class Trace(Hook):
    """Writes the trace of a session while it runs, from what is written to its journal.

    It writes in the background, so that a busy disk does not slow the run down; ``aclose`` waits
    until everything is written.
    """

    def __init__(self, journal: Journal, state: AgentState) -> None:
        """``state`` is the fold of the journal so far."""
        self._folder = journal.path.parent
        self._state = state
        self._read = journal.size
        self._new: deque[tuple[float, Event, int]] = deque()
        self._steps: Steps | None = None
        self._ended: list[dict[str, Any]] = []
        self._running = True
        self._followed = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        journal.follower = lambda when, event: self._new.append((when, event, journal.size))

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Catch up with the journal when a run starts or ends, and soon after each step."""
        failed = self._failure()
        match event:
            case SessionStarted() | RunFinished():
                self._running = isinstance(event, SessionStarted)
                self._catch_up()
            case StepFinished() if self._later is None:
                loop = asyncio.get_running_loop()
                self._later = loop.call_at(self._followed + EVERY_S, self._catch_up)
        if failed is not None:
            raise failed

    async def aclose(self) -> None:
        """Wait until everything so far is written."""
        if self._later is not None:
            self._catch_up()
        if self._work is not None:
            await asyncio.wait([self._work])
        if (failed := self._failure()) is not None:
            _log.warning("the trace in %s cannot be written: %s", self._folder, failed)

    def _catch_up(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later, self._followed = None, asyncio.get_running_loop().time()
        self._work = asyncio.create_task(self._follow(self._work))

    async def _follow(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        await asyncio.to_thread(self._write)

    def _failure(self) -> BaseException | None:
        """The error of the last write, if it has ended and failed."""
        return self._work.exception() if self._work is not None and self._work.done() else None

    def _write(self) -> None:
        if self._steps is None:
            self._steps = self._known() or self._past()
        # Unbuffered: each write releases the GIL, so that the event loop can handle a key press.
        with open(self._folder / STEPS, "ab", buffering=0) as file:
            while self._new or self._ended:
                if self._ended:
                    file.write(b"".join(map(_line, self._ended)))
                    self._ended.clear()
                if self._new:
                    when, event, self._read = self._new.popleft()
                    self._ended += self._steps.add(event, when)
        # A run whose end could not be journalled has ended too: it is "interrupted".
        _write_manifest(self._folder, self._steps, self._read, running=self._running)

    def _known(self) -> Steps | None:
        """The steps so far according to the manifest; None if it may be out of date."""
        try:
            manifest = json.loads((self._folder / MANIFEST).read_bytes())
            size = (self._folder / STEPS).stat().st_size
            if manifest[_ABOUT] != [self._read, size]:
                return None
            return Steps.after(manifest, self._state)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _past(self) -> Steps:
        """The steps so far, read from the journal."""
        steps = Steps()
        _replace_file(self._folder / STEPS, b"")
        for when, event in read_timed(self._folder / FILE_NAME, 0, self._read):
            self._ended += steps.add(event, when)
        return steps


def rewrite(folder: Path) -> tuple[Steps, list[dict[str, Any]]]:
    """Rewrite the trace of a closed session from its journal.

    Raises:
        JournalError: the journal cannot be read.
        OSError: the trace cannot be written.
    """
    try:
        size = (folder / FILE_NAME).stat().st_size
    except OSError as error:
        raise JournalError(f"cannot read {folder / FILE_NAME}: {error.strerror}") from error
    steps, ended = steps_of(read_timed(folder / FILE_NAME, 0, size))
    _replace_file(folder / STEPS, b"".join(map(_line, ended)))
    _write_manifest(folder, steps, size)
    return steps, ended


def close_interrupted(sessions: Iterable[SessionInfo]) -> None:
    """Rewrite the traces whose manifest says ``running`` although the session is not."""
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


def _write_manifest(folder: Path, steps: Steps, read: int, *, running: bool = False) -> None:
    """``read`` is how many bytes of the journal the steps cover."""
    manifest = steps.manifest(running=running)
    if steps.at_rest:
        manifest[_ABOUT] = [read, (folder / STEPS).stat().st_size]
    _replace_file(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.replace(temporary, path)
