"""The event log on disk: one append-only file of JSON lines, and the truth about a session.

A line is written with one system call and is in the system's hands when ``append`` returns: a
killed process loses nothing and leaves at most one torn line, the last. The disk itself catches up
in the background (a loss of power costs the last moments, as it does for the files that tools
write) and is waited for at the end. The file is locked while its process lives. Lines carry a
schema version, a number and the time (seconds since 1970). Values of known keys never reach it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentcli.agent.events import Event, ToolStarted, from_record, to_record
from agentcli.errors import JournalError

SCHEMA = 1
FILE_NAME = "events.jsonl"


class Journal:
    """An ``EventLog`` that appends to one file.

    ``secrets`` are values to be redacted. Opening an existing file continues it: a torn last line
    is moved to a file beside it.

    Raises:
        JournalError: the file cannot be created, is locked by another process, or is damaged.
    """

    def __init__(self, path: Path, *, secrets: Iterable[str] = ()) -> None:
        self.path = path
        self._secrets = [secret for secret in secrets if len(secret) >= 8]
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot write the session journal {path}: {error.strerror}",
                hint="set AGENTCLI_DATA_DIR to a folder that can be written",
            ) from error
        if not _lock(self._fd):
            os.close(self._fd)
            raise JournalError(f"session {path.parent.name} is open in another process")
        self._count, self._size = self._recover()
        self._sync: asyncio.Future[None] | None = None

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """Write one event; it is in the file before this first gives up control."""
        line = self._line(event)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(28, "No space left on device")
            self._size += written
            self._count += 1
            if sync:
                await asyncio.to_thread(os.fdatasync, self._fd)
            elif isinstance(event, ToolStarted) and (not self._sync or self._sync.done()):
                loop = asyncio.get_running_loop()
                self._sync = loop.run_in_executor(None, _sync_copy, os.dup(self._fd))
        except OSError as error:
            raise JournalError(
                f"cannot write the session journal {self.path}: {error.strerror}",
                hint="free some space or set AGENTCLI_DATA_DIR to another folder",
            ) from error

    def close(self) -> None:
        """Let go of the file and its lock."""
        # A copy may still be on its way to the disk, and would hold the lock with it.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    def _line(self, event: Event) -> bytes:
        record = {"v": SCHEMA, "n": self._count, "t": round(time.time(), 3), **to_record(event)}
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        # Lone surrogates come from undecodable file names; JSON can only escape them.
        return text.encode("utf-8", errors="backslashreplace") + b"\n"

    def _recover(self) -> tuple[int, int]:
        """Lines and bytes of the complete part; whatever is torn is set aside."""
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with open(self.path.with_suffix(".torn"), "ab") as torn:
                torn.write(data[end:] + b"\n")
            os.ftruncate(self._fd, end)
        return data.count(b"\n"), end


def _lock(fd: int, patience_s: float = 0.2) -> bool:
    """Whether the file is ours alone now. Whoever lists sessions holds it too, for a moment."""
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)


def _sync_copy(fd: int) -> None:
    """Bring the file to the disk; on a copy, since the journal may be closed meanwhile."""
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def read_events(path: Path) -> Iterator[Event]:
    """The events of a journal, up to its last complete line.

    Raises:
        JournalError: no such file, a newer schema, or a line that is no event.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    end = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:end].splitlines(), start=1):
        yield parse_line(line, f"{path}, line {number}")


def parse_line(line: bytes, where: str) -> Event:
    """One journal line as an event; ``where`` names it in errors.

    Raises:
        JournalError: it is not an event of a known schema.
    """
    try:
        record = json.loads(line)
        version = record["v"]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{where}: not a journal line") from error
    if version > SCHEMA:
        raise JournalError(
            f"{where}: written by a newer agentcli (schema {version})", hint="update agentcli"
        )
    try:
        return from_record(record)
    except ValueError as error:
        raise JournalError(f"{where}: {error}") from error
