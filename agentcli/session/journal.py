"""The event log on disk: one append-only file of JSON lines, from which all state is computed.

A line is written with one system call, and the operating system has it when ``append`` returns: a
killed process loses nothing and leaves at most one torn line, the last. Events that must survive a
power failure (the start of a tool that may change files, and the end) are synced to disk. The file
is locked while its process lives. Lines carry a schema version, a number and the time (seconds
since 1970). The secrets that the journal is given never reach the file: they are redacted from all
content, but not from the fields that give a line its structure.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from agentcli.agent.events import Event
from agentcli.agent.records import from_record, to_record
from agentcli.errors import JournalError

SCHEMA = 1
FILE_NAME = "events.jsonl"

_REDACTED = "[redacted]"
_HEAD = re.compile(rb'\{"v":\d+,"n":(\d+),"t":([\d.]+),')
# Fields needed to find and fold a session. A value that occurs in them is not redacted there.
_STRUCTURE = {
    *("kind", "role", "name", "id", "call_id", "session_id", "workspace", "model", "mode"),
    *("sandbox", "tools", "version", "tool", "tool_kind", "outcome", "finish_reason", "status"),
    *("stage", "phase", "previous", "purpose", "media_type", "base64", "signature"),
}


class Journal:
    """An ``EventLog`` that appends to one file.

    ``secrets`` are values to redact. Opening an existing file continues it: a torn last line is
    moved to a file next to it. ``follower`` is called with the time and the event of each written
    line, as they would be read back.

    Raises:
        JournalError: the file cannot be created, is locked by another process, or is damaged.
    """

    def __init__(self, path: Path, *, secrets: Iterable[str] = ()) -> None:
        self.path = path
        self.follower: Callable[[float, Event], None] | None = None
        self._secrets = _forms(secret for secret in secrets if len(secret) >= 8)
        self._marks = {json.dumps(form, ensure_ascii=False)[1:-1] for form in self._secrets}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot write the session journal {path}: {error.strerror}",
                hint="set AGENTCLI_DATA_DIR to a folder that can be written",
            ) from error
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise JournalError(f"cannot write the session journal {path}: not a regular file")
        if not _lock(self._fd):
            os.close(self._fd)
            raise JournalError(
                f"session {path.parent.name} is open in another process",
                hint="Close it there, or start another session",
            )
        try:
            self._count, self._size = self._recover()
        except OSError as error:
            os.close(self._fd)
            raise JournalError(
                f"cannot set aside the torn end of {path}: {error.strerror}",
                hint="free some space",
            ) from error

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """Write one event; it is in the file before the first suspension."""
        when = round(time.time(), 3)
        line, event = self._line(when, event)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(28, "No space left on device")
            self._size += written
            self._count += 1
            if self.follower is not None:
                self.follower(when, event)
            if sync:
                await asyncio.to_thread(os.fdatasync, self._fd)
                if not os.fstat(self._fd).st_nlink:
                    raise OSError(2, "it was deleted while the session was running")
        except OSError as error:
            raise JournalError(
                f"cannot write the session journal {self.path}: {error.strerror}",
                hint="free some space or set AGENTCLI_DATA_DIR to another folder",
            ) from error

    def close(self) -> None:
        """Unlock and close the file."""
        if self._fd < 0:
            return
        # Unlock explicitly: the thread of a cancelled sync may still be using the file.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1  # the number may soon be another file's

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._size

    def _line(self, when: float, event: Event) -> tuple[bytes, Event]:
        """An event as a line, and the event as it reads back from that line."""
        said = to_record(event)
        text = self._text(when, said)
        if any(mark in text for mark in self._marks):
            said = self._redacted(said)
            text, event = self._text(when, said), from_record(said)
        # Lone surrogates come from undecodable file names; JSON can only escape them.
        return text.encode("utf-8", errors="backslashreplace") + b"\n", event

    def _text(self, when: float, said: Mapping[str, Any]) -> str:
        record = {"v": SCHEMA, "n": self._count, "t": when, **said}
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))

    def _redacted(self, value: Any, *, free: bool = False) -> Any:
        """The value without secrets. ``free``: inside a tool's data, no key is structure."""
        match value:
            case str():
                for secret in self._secrets:
                    value = value.replace(secret, _REDACTED)
                return value
            case list():
                return [self._redacted(item, free=free) for item in value]
            case Mapping():
                return {
                    key: item
                    if not free and _is_structure(key, value)
                    else self._arguments(item)
                    if key == "arguments" and isinstance(item, str)
                    else self._redacted(item, free=free or key == "data")
                    for key, item in value.items()
                }
        return value

    def _arguments(self, text: str) -> str:
        """Redact the values in a call's JSON arguments, not the keys."""
        if not any(secret in text for secret in self._secrets):
            return text
        try:
            return json.dumps(self._redacted(json.loads(text), free=True), ensure_ascii=False)
        except (ValueError, RecursionError):
            return str(self._redacted(text))

    def _recover(self) -> tuple[int, int]:
        """Set a torn last line aside; return the lines and bytes of the complete part."""
        data = _read(self.path)
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with open(self.path.with_suffix(".torn"), "ab") as torn:
                torn.write(data[end:] + b"\n")
            os.ftruncate(self._fd, end)
        return data.count(b"\n"), end


def _forms(secrets: Iterable[str]) -> list[str]:
    """The secrets and their forms inside JSON text, the longest first."""
    forms = {
        form
        for secret in secrets
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    }
    return sorted(forms, key=len, reverse=True)


def _is_structure(key: str, record: Mapping[str, Any]) -> bool:
    # ``reason`` is an identifier in one kind of event, and free text in the others.
    return key in _STRUCTURE or (key == "reason" and record.get("kind") == "run_finished")


def _lock(fd: int, patience_s: float = 0.2) -> bool:
    """Try to lock the file. Listing sessions also locks it for a moment, hence the retries."""
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)


def line_mark(kind: str) -> bytes:
    """What the line of an event of this kind contains, to find it without parsing all lines."""
    return f'"kind":"{kind}"'.encode()


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, but nothing that could block or never end.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(22, "not a regular file")
    return open(fd, "rb")


def _read(path: Path, start: int = 0, end: int | None = None) -> bytes:
    with open_regular(path) as file:
        file.seek(start)
        return file.read(-1 if end is None else end - start)


def read_events(path: Path) -> Iterator[Event]:
    """The events of a journal, up to its last complete line.

    Raises:
        JournalError: there is no such file, its schema is newer, a line is not an event, or one is
            missing.
    """
    return (event for _, event in read_timed(path))


def read_timed(path: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[float, Event]]:
    """The events from byte ``start`` to ``end``, each with its time in seconds since 1970.

    Raises as ``read_events``.
    """
    try:
        data = _read(path, start, end)
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    following = None if start else 0
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        event = parse_line(line, f"{path}, line {number}")
        head = _HEAD.match(line)
        if head is not None:
            # What is folded from the rest would be wrong, and an undo by it could destroy work.
            if following not in (None, int(head[1])):
                where = f"{path}, line {number}"
                raise JournalError(f"{where}: lines are missing or repeated before this one")
            following = int(head[1]) + 1
        yield float(head[2]) if head else 0.0, event


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def parse_line(line: bytes, where: str) -> Event:
    """Parse one line of a journal; ``where`` names it in errors.

    Raises:
        JournalError: it is not an event of a known schema.
    """
    try:
        record = json.loads(line, parse_constant=_refuse)
        version = record["v"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalError(f"{where}: not a journal line") from error
    if type(version) is not int:
        raise JournalError(f"{where}: not a journal line")
    if version > SCHEMA:
        raise JournalError(
            f"{where}: written by a newer agentcli (schema {version})", hint="update agentcli"
        )
    try:
        return from_record(record)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{where}: {error}") from error
