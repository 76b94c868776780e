"""The sessions on this machine: where they are, which have ended, and which can be resumed."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from agentcli.agent.events import (
    Compacted,
    CompactionUndone,
    Event,
    ModelUsed,
    Rewound,
    RunFinished,
    SessionStarted,
    Status,
    StopReason,
    TaskGiven,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.state import AgentState, ending_words
from agentcli.errors import JournalError, UsageError
from agentcli.folders import data_folder
from agentcli.session.journal import FILE_NAME, open_regular, parse_line, read_events
from agentcli.text import clip

_TAIL_BYTES = 64 * 1024

BETWEEN_RUNS = (Compacted, CompactionUndone, ModelUsed)
"""Events that may follow the end of a run, or a rewind, without reopening the session."""


class Condition(StrEnum):
    """Whether a session is running, has finished, or was interrupted."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session at a glance; ``updated`` is the journal's modification time.

    ``status`` is that of the last run (``Status``), or ``rewound`` if the session was rewound
    since, or else its condition. ``stop_reason`` says why the last run ended.
    """

    id: str
    path: Path
    workspace: str
    task: str
    model: str
    condition: Condition
    status: str
    stop_reason: str
    updated: datetime

    @property
    def ended(self) -> str:
        """The status in a few words, with the stop reason if needed."""
        if not self.stop_reason:
            return self.status
        return ending_words(Status(self.status), StopReason(self.stop_reason))


def sessions_dir() -> Path:
    """The folder with one subfolder for each session."""
    return data_folder() / "sessions"


def new_session_id() -> str:
    """A new id; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def journal_path(session_id: str) -> Path:
    """The path of a session's journal, whether it exists or not.

    Raises:
        UsageError: this cannot be a session's id.
    """
    wrong = not session_id or "/" in session_id or session_id.startswith(".")
    if wrong or len(os.fsencode(session_id)) > 255 or "\0" in session_id:
        session_id = clip(session_id, 60)
        raise UsageError(f"{session_id!r} is not a session id", hint="see: agentcli sessions list")
    return sessions_dir() / session_id / FILE_NAME


def find_session(given: str) -> str:
    """Find a session by its id or by a unique prefix of it.

    Raises:
        UsageError: there is no such session, or more than one.
    """
    if journal_path(given).exists():
        return given
    ids = [path.parent.name for path in _journals() if path.parent.name.startswith(given)]
    if len(ids) == 1:
        return ids[0]
    what = f"{len(ids)} sessions begin with {given}" if ids else f"there is no session {given}"
    raise UsageError(what, hint="See: agentcli sessions list")


def last_session(workspace: Path) -> str:
    """The id of a folder's last session.

    Raises:
        UsageError: there is none.
    """
    found = list_sessions(workspace)
    if not found:
        raise UsageError(
            f"there is no session of {workspace} yet", hint="Begin one without --continue"
        )
    return found[0].id


def load_state(session_id: str) -> AgentState:
    """The state after the session's last complete event.

    Raises:
        UsageError: there is no such session.
        JournalError: its journal cannot be read.
    """
    path = journal_path(session_id)
    if not path.exists():
        raise UsageError(f"there is no session {session_id}", hint="see: agentcli sessions list")
    try:
        state = fold_all(read_events(path))
    except (ValueError, LookupError, TypeError) as error:
        raise JournalError(f"{path}: its events are inconsistent: {error!r}") from error
    return replace(state, session_id=session_id)  # the folder's name: it may have been copied


def list_sessions(workspace: Path | None = None) -> list[SessionInfo]:
    """Sessions, newest first, without those in ``unreadable_sessions``."""
    found = [info for info in _all() if workspace is None or info.workspace == str(workspace)]
    return sorted(found, key=lambda info: info.updated, reverse=True)


def unreadable_sessions() -> dict[str, str]:
    """Ids of sessions whose journals cannot be read (e.g. of a newer agentcli), with the reason."""
    found: dict[str, str] = {}
    for path in _journals():
        try:
            _info(path)
        except Exception as error:
            found[path.parent.name] = str(error)
    return found


def interrupted(workspace: Path) -> list[SessionInfo]:
    """Sessions of a workspace that were interrupted."""
    return [i for i in list_sessions(workspace) if i.condition is Condition.INTERRUPTED]


def one_begins() -> bool:
    """Whether a session is open that has no task yet, so that its workspace is not known."""
    for path in _journals():
        with suppress(Exception):  # unreadable ones are another matter
            if _info(path) is None:
                with open_regular(path) as file:
                    if _is_locked(file.fileno()):
                        return True
    return False


def _journals() -> list[Path]:
    return sorted(sessions_dir().glob(f"*/{FILE_NAME}"))


def _all() -> Iterator[SessionInfo]:
    for path in _journals():
        try:
            info = _info(path)
        except Exception:  # a broken session must not hide the others
            continue
        if info is not None:
            yield info


def _info(path: Path) -> SessionInfo | None:
    """Summarize a session from the head and the tail of its journal, as journals can be long."""
    with open_regular(path) as file:
        head = _complete_lines(file.read(_TAIL_BYTES))
        ending = _ending(file, str(path))
        running = _is_locked(file.fileno())
    session: SessionStarted | None = None
    task = ""
    for line in head[:20]:
        match parse_line(line, str(path)):
            case SessionStarted() as started:
                session = session or started
            case TaskGiven(text):
                task = text
                break
    if session is None:
        return None
    condition, status, reason = Condition.INTERRUPTED, "", ""
    if running:
        condition = Condition.RUNNING
    elif isinstance(ending, RunFinished):
        condition, status = Condition.FINISHED, ending.status.value
        reason = ending.reason.value
    elif isinstance(ending, Rewound):  # rewound after its last run
        condition, status = Condition.FINISHED, "rewound"
    updated = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return SessionInfo(
        path.parent.name,
        path,
        session.workspace,
        task,
        session.model,
        condition,
        status or condition.value,
        reason,
        updated,
    )


def _ending(file: BinaryIO, where: str) -> Event | None:
    """The last event of a run or a rewind; the session may have been compacted since."""
    size = file.seek(0, os.SEEK_END)
    back = _TAIL_BYTES
    while True:
        file.seek(max(0, size - back))
        lines = _complete_lines(file.read())
        for line in reversed(lines[back < size :]):  # the first of a tail may be cut
            event = parse_line(line, where)
            if not isinstance(event, BETWEEN_RUNS):
                return event
        if back >= size:
            return None
        back *= 8


def _complete_lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines()


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
