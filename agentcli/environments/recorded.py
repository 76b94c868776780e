"""An environment that records changes to the workspace, so that they can be undone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from agentcli.environments.base import (
    Changes,
    DirEntry,
    Environment,
    ExecResult,
    FileStat,
    GrepMatch,
    Output,
)
from agentcli.environments.snapshots import Snapshots
from agentcli.sandbox.limits import COMMAND, Limits


class Recorded:
    """Wraps an environment and scans the workspace before and after everything that may change it.

    Changes from before a command or a write began count as made from outside.
    """

    def __init__(self, inner: Environment, snapshots: Snapshots, *, now: bool = True) -> None:
        """``now`` takes the first scan at the start instead of before the first change."""
        self._now = now
        self._told = False
        self.inner = inner
        self.snapshots = snapshots
        self.root = inner.root
        self.level = inner.level
        self.operations = inner.operations
        self._running = 0
        self._found: list[Changes] = []

    async def drain(self, *, outside: bool = False) -> list[Changes]:
        """The changes since the last call, in order.

        Changes during no command and no write are attributed to a tool that accesses the files by
        itself, unless ``outside`` is set. They are included only if finding them does not take a
        look at every file.
        """
        if self.snapshots.begun and self.snapshots.watches:
            await self._look(outside=outside)
        found, self._found = self._found, []
        return found

    async def start(self) -> None:
        """Start the environment, and begin the first scan of the workspace in the background."""
        await self.inner.start()
        self.level = self.inner.level
        if self._now:
            self.snapshots.begin()

    @property
    def problem(self) -> str:
        """Why contents are not stored; empty while all is well."""
        return self.snapshots.problem

    def taken(self) -> tuple[str, tuple[str, ...]] | None:
        """The digest of the list of all files at the start, and what it leaves out; only once."""
        if self._told or not self.snapshots.taken:
            return None
        self._told = True
        return self.snapshots.taken, self.snapshots.left_out

    async def aclose(self) -> None:
        """Close the environment and the snapshots."""
        await asyncio.gather(self.inner.aclose(), self.snapshots.aclose())

    async def exec(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = COMMAND,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: Output | None = None,
    ) -> ExecResult:
        """Run a command; see ``Environment.exec``."""
        # While another command runs, changes are attributed to it.
        await self._look(outside=not self._running)
        self._running += 1
        try:
            return await self.inner.exec(
                argv, limits=limits, cwd=cwd, env=env, stdin=stdin, on_output=on_output
            )
        finally:
            self._running -= 1
            await self._look(outside=False)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Record what the ``with`` block changes other than by a command or a write."""
        await self._look(outside=not self._running)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            await self._look(outside=False)

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        expect: bytes | None = None,
        create_parents: bool = True,
        mode: int | None = None,
    ) -> None:
        """Replace a file atomically; see ``Environment.write``."""
        async with self._changing_one(os.path.realpath(os.path.join(self.root, path))):
            await self.inner.write(
                path, data, expect=expect, create_parents=create_parents, mode=mode
            )

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Remove a file; see ``Environment.remove``."""
        folder, name = os.path.split(os.path.join(self.root, path))
        async with self._changing_one(os.path.join(os.path.realpath(folder), name)):
            await self.inner.remove(path, expect=expect)

    @asynccontextmanager
    async def _changing_one(self, full: str) -> AsyncIterator[None]:
        """Record what the ``with`` block changes at one path, with its links resolved."""
        real = os.path.relpath(full, self.root)
        await self._look(outside=not self._running, near=real)
        below = real not in (".", "..") and not real.startswith("../")
        hidden = below and not self.snapshots.covers(real)
        before = self.snapshots.capture(real) if hidden else ""
        yield
        await self._look(outside=False, near=real)
        if hidden and not self.snapshots.covers(real):
            after = self.snapshots.capture(real)
            self._add(Changes({real: before} if before else {}, {real: after} if after else {}))

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See ``Environment.read``."""
        return await self.inner.read(path, max_bytes=max_bytes)

    async def stat(self, path: str) -> FileStat | None:
        """See ``Environment.stat``."""
        return await self.inner.stat(path)

    async def list_dir(self, path: str) -> list[DirEntry]:
        """See ``Environment.list_dir``."""
        return await self.inner.list_dir(path)

    async def glob(self, pattern: str, path: str = ".", *, limit: int = 1000) -> list[str]:
        """See ``Environment.glob``."""
        return await self.inner.glob(pattern, path, limit=limit)

    async def grep(
        self,
        pattern: str,
        path: str = ".",
        *,
        glob: str | None = None,
        ignore_case: bool = False,
        limit: int = 200,
    ) -> list[GrepMatch]:
        """See ``Environment.grep``."""
        return await self.inner.grep(pattern, path, glob=glob, ignore_case=ignore_case, limit=limit)

    async def _look(self, *, outside: bool, near: str | None = None) -> None:
        if self.snapshots.unchanged:
            return
        # Finish even if cancelled, or what it finds would be lost.
        await asyncio.shield(asyncio.ensure_future(self._looked(outside, near)))

    async def _looked(self, outside: bool, near: str | None) -> None:
        changes = await self.snapshots.changes(near)
        self._add(Changes(changes.before, changes.after, outside))

    def _add(self, changes: Changes) -> None:
        if changes.paths:
            self._found.append(changes)
