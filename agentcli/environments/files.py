"""The file operations of the Environment protocol, by requests to a file worker.

Environments differ in how and where they start the worker; its operations are the same everywhere.
"""

from __future__ import annotations

from typing import Any

from agentcli.environments.base import DirEntry, FileStat, GrepMatch
from agentcli.environments.link import WorkerLink


class WorkerFiles:
    """A mixin. ``_worker()`` returns a live link, and starts a worker if there is none."""

    async def _worker(self) -> WorkerLink:
        raise NotImplementedError

    async def _call(self, op: str, data: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        link = await self._worker()
        return await link.call(op, data, **arguments)

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The file's bytes, or its first ``max_bytes``."""
        _, data = await self._call("read", path=path, max_bytes=max_bytes)
        return data

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
        length = None if expect is None else len(expect)
        body = data if expect is None else expect + data
        await self._call(
            "write", body, path=path, expect=length, create_parents=create_parents, mode=mode
        )

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Remove a file; see ``Environment.remove``."""
        length = None if expect is None else len(expect)
        await self._call("remove", expect or b"", path=path, expect=length)

    async def stat(self, path: str) -> FileStat | None:
        """What is at the path, or None."""
        value, _ = await self._call("stat", path=path)
        return None if value is None else FileStat(path, *value)

    async def list_dir(self, path: str) -> list[DirEntry]:
        """The files and folders in a folder, sorted by name."""
        value, _ = await self._call("list_dir", path=path)
        return [DirEntry(*entry) for entry in value]

    async def glob(self, pattern: str, path: str = ".", *, limit: int = 1000) -> list[str]:
        """The paths that match, relative to the root and sorted."""
        value, _ = await self._call("glob", pattern=pattern, path=path, limit=limit)
        return list(value)

    async def grep(
        self,
        pattern: str,
        path: str = ".",
        *,
        glob: str | None = None,
        ignore_case: bool = False,
        limit: int = 200,
    ) -> list[GrepMatch]:
        """The lines that match a regular expression."""
        value, _ = await self._call(
            "grep", pattern=pattern, path=path, glob=glob, ignore_case=ignore_case, limit=limit
        )
        return [GrepMatch(*match) for match in value]
