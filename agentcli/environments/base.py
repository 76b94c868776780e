"""Where tools act: files and processes behind one protocol.

Paths are relative to the workspace root or absolute; the environment itself, not a comparison of
strings, refuses what lies outside. Every operation raises ``EnvironmentOpError`` with a symbolic
errno when it fails, and ``exec`` never raises for a command that merely fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from agentcli.errors import EnvironmentOpError
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import ExecResult

__all__ = [
    "DirEntry",
    "Effect",
    "Environment",
    "ExecResult",
    "FileStat",
    "GrepMatch",
    "LinesRun",
    "Nowhere",
    "Output",
    "Terminates",
    "TracesLines",
    "WorkspaceCopy",
    "opened",
]

Output = Callable[[str, bytes], None]
"""Called with ``"stdout"`` or ``"stderr"`` and the bytes, as they arrive."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """``kind`` is file, dir, link or other; ``size`` in bytes, ``mode`` the permission bits."""

    path: str
    kind: str
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class DirEntry:
    """One name in a folder."""

    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class GrepMatch:
    """One matching line; ``line`` counts from 1."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of some paths: a name in only one of the two was made or removed.

    Entries are as ``environments/entries.py`` writes them. ``outside``: not a tool's doing.
    """

    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    outside: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted({*self.before, *self.after}))


class Environment(Protocol):
    """Files and processes of one workspace."""

    root: str
    level: str
    """How tools are confined: ``full``, ``reduced`` or ``none``."""
    operations: frozenset[str]
    """Which of ``files`` and ``process`` exist here."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        limits: Limits,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: Output | None = None,
    ) -> ExecResult:
        """Run a command, bounded by ``limits``; cancelling kills its whole tree."""
        ...

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The file's bytes, or its first ``max_bytes``."""
        ...

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        expect: bytes | None = None,
        create_parents: bool = True,
        mode: int | None = None,
    ) -> None:
        """Replace a file in one atomic step, keeping its mode and following links inside the root.

        With ``expect``, the file must still hold these bytes; else ``EnvironmentOpError`` with the
        code ``CONFLICT`` and nothing is written. ``mode`` is that of a file that is new.
        """
        ...

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Take a file or a link away, no folder. ``expect`` as in ``write``."""
        ...

    async def stat(self, path: str) -> FileStat | None:
        """What is at the path, or None."""
        ...

    async def list_dir(self, path: str) -> list[DirEntry]:
        """The names in a folder, sorted, folders and files alike."""
        ...

    async def glob(self, pattern: str, path: str = ".", *, limit: int = 1000) -> list[str]:
        """Paths (relative to the root, sorted) that match; ignored files are left out."""
        ...

    async def grep(
        self,
        pattern: str,
        path: str = ".",
        *,
        glob: str | None = None,
        ignore_case: bool = False,
        limit: int = 200,
    ) -> list[GrepMatch]:
        """Lines that match a regular expression; ignored and binary files are left out."""
        ...

    async def start(self) -> None:
        """Make it ready; raises ``SandboxError`` when the level asked for is not to be had."""
        ...

    async def aclose(self) -> None:
        """Kill what still runs and let go of everything."""
        ...


@dataclass(frozen=True, slots=True)
class Effect:
    """What was changed on a copy: a unified diff for people, and the paths, relative and sorted.

    Binary files, modes and kinds are told of in git's words. Paths that are not UTF-8 hold
    surrogates, as Python's file names do.
    """

    diff: str
    paths: tuple[str, ...]


class WorkspaceCopy(Environment, Protocol):
    """A copy of a workspace, as if it were the workspace itself."""

    async def effect(self) -> Effect:
        """What differs from the workspace as it was copied."""
        ...

    async def commit(self) -> Effect:
        """Bring the effect into the workspace: all of it, or nothing.

        Raises:
            EnvironmentOpError: code ``CONFLICT``: a path that it touches has changed meanwhile.
        """
        ...


class Nowhere:
    """No workspace at all: for agents whose tools need none."""

    root = ""
    level = "none"
    operations: frozenset[str] = frozenset()

    async def exec(
        self,
        argv: Sequence[str],
        *,
        limits: Limits,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: Output | None = None,
    ) -> ExecResult:
        """Refused, as everything here; raises ``EnvironmentOpError``."""
        raise _nowhere()

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Refused."""
        raise _nowhere()

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        expect: bytes | None = None,
        create_parents: bool = True,
        mode: int | None = None,
    ) -> None:
        """Refused."""
        raise _nowhere()

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Refused."""
        raise _nowhere()

    async def stat(self, path: str) -> FileStat | None:
        """Refused."""
        raise _nowhere()

    async def list_dir(self, path: str) -> list[DirEntry]:
        """Refused."""
        raise _nowhere()

    async def glob(self, pattern: str, path: str = ".", *, limit: int = 1000) -> list[str]:
        """Refused."""
        raise _nowhere()

    async def grep(
        self,
        pattern: str,
        path: str = ".",
        *,
        glob: str | None = None,
        ignore_case: bool = False,
        limit: int = 200,
    ) -> list[GrepMatch]:
        """Refused."""
        raise _nowhere()

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""


def _nowhere() -> EnvironmentOpError:
    return EnvironmentOpError("there is no workspace here", code="ENOTSUP")


@dataclass
class LinesRun:
    """Which lines ran in tests: for each path and line (from 1) in how many that failed or passed.

    ``failed`` and ``passed`` count all tests; both are 0 where nothing is known.
    """

    failed: int = 0
    passed: int = 0
    ran: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)


@runtime_checkable
class TracesLines(Protocol):
    """An environment that can look which lines tests run."""

    def tracing(self) -> AbstractContextManager[LinesRun]:
        """While it is open, test runs by ``exec`` are looked at; the last one counts."""
        ...


@runtime_checkable
class Terminates(Protocol):
    """An environment that can come to its end: a game that is over, a machine that is gone."""

    terminal: str
    """Why nothing more can be done in it; empty while something can."""


@asynccontextmanager
async def opened(environment: Environment) -> AsyncIterator[Environment]:
    """Start an environment and close it at the end, whatever happens."""
    await environment.start()
    try:
        yield environment
    finally:
        await environment.aclose()
