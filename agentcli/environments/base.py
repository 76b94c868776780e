"""The protocol through which tools reach files and processes.

Paths are relative to the workspace root or absolute. The environment itself refuses paths outside,
not a comparison of strings. Operations that fail raise ``EnvironmentOpError`` with a symbolic
errno. ``exec`` does not raise if the command merely fails.
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
    """``kind`` is file, dir, link or other; ``size`` is in bytes, ``mode`` the permission bits."""

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
    """Changes to some paths, with the entry of each before and after, as in ``entries.py``.

    A path that is only in one of the two was created or removed. ``outside`` means that no tool
    made these changes.
    """

    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    outside: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All changed paths, sorted."""
        return tuple(sorted({*self.before, *self.after}))


class Environment(Protocol):
    """Files and processes of one workspace."""

    root: str
    level: str
    """How tools are confined: ``full``, ``reduced`` or ``none``."""
    operations: frozenset[str]
    """Which of ``files`` and ``process`` are available."""

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
        """Run a command within ``limits``. Cancelling kills its whole process tree."""
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
        """Replace a file atomically, keeping its mode and following links inside the root.

        With ``expect``, the file must still hold these bytes; otherwise nothing is written, and
        ``EnvironmentOpError`` has the code ``CONFLICT``. ``mode`` applies to a new file only.
        """
        ...

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Remove a file or a link, but no folder. ``expect`` is as in ``write``."""
        ...

    async def stat(self, path: str) -> FileStat | None:
        """What is at the path, or None."""
        ...

    async def list_dir(self, path: str) -> list[DirEntry]:
        """The files and folders in a folder, sorted by name."""
        ...

    async def glob(self, pattern: str, path: str = ".", *, limit: int = 1000) -> list[str]:
        """The paths that match, relative to the root and sorted, without ignored files."""
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
        """The lines that match a regular expression, without ignored and binary files."""
        ...

    async def start(self) -> None:
        """Prepare for use; raises ``SandboxError`` if the requested level is not available."""
        ...

    async def aclose(self) -> None:
        """Kill what still runs, and release everything."""
        ...


@dataclass(frozen=True, slots=True)
class Effect:
    """The changes on a copy: a unified diff for people, and the paths, relative and sorted.

    The diff describes binary files, modes and kinds as git does. Paths that are not UTF-8 contain
    surrogates, like Python's file names.
    """

    diff: str
    paths: tuple[str, ...]


class WorkspaceCopy(Environment, Protocol):
    """A copy of a workspace that can be used like the workspace itself."""

    async def effect(self) -> Effect:
        """How the copy differs from the workspace as it was when it was copied."""
        ...

    async def commit(self) -> Effect:
        """Apply the effect to the workspace: all of it or nothing.

        Raises:
            EnvironmentOpError: code ``CONFLICT``, a path concerned has changed since the copy.
        """
        ...


class Nowhere:
    """No workspace, for agents whose tools need none."""

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
        """Refused, like everything here; raises ``EnvironmentOpError``."""
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
    """The lines that tests ran: per path and line (from 1), in how many failed and passed tests.

    ``failed`` and ``passed`` count all tests; both are 0 if nothing is known.
    """

    failed: int = 0
    passed: int = 0
    ran: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)


@runtime_checkable
class TracesLines(Protocol):
    """An environment that can trace which lines tests run."""

    def tracing(self) -> AbstractContextManager[LinesRun]:
        """Trace the test runs of ``exec`` inside the ``with`` block; the last one counts."""
        ...


@runtime_checkable
class Terminates(Protocol):
    """An environment that can end by itself: a game that is over, a machine that is gone."""

    terminal: str
    """Why nothing more can be done in it; empty until then."""


@asynccontextmanager
async def opened(environment: Environment) -> AsyncIterator[Environment]:
    """Start an environment, and close it on exit."""
    await environment.start()
    try:
        yield environment
    finally:
        await environment.aclose()
