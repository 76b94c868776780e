"""The workspace's files for completion, without ignored ones, listed in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agentcli.environments.base import Environment
from agentcli.errors import AgentCLIError
from agentcli.tools.mcp.references import Referable

_MOST = 100_000
_FRESH_S = 20.0
"""A refresh within this time of the last listing does nothing."""


class FileIndex:
    """An index of paths relative to the workspace.

    Folders end in a slash. Resources of MCP servers follow at the end as ``server:uri``.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._listed = 0.0
        self._task: asyncio.Task[None] | None = None

    def refresh(
        self, environment: Environment, servers: Referable | None, then: Callable[[], None]
    ) -> None:
        """List again in the background if the last listing is old; call ``then`` when done."""
        running = self._task is not None and not self._task.done()
        if running or time.monotonic() - self._listed < _FRESH_S:
            return
        self._task = asyncio.create_task(self._list(environment, servers, then))

    def forget(self) -> None:
        """Let the next ``refresh`` list again, because files may have changed."""
        self._listed = 0.0

    async def _list(
        self, environment: Environment, servers: Referable | None, then: Callable[[], None]
    ) -> None:
        try:
            files = await environment.glob("**/*", limit=_MOST)
        except AgentCLIError:
            return
        folders = {f"{path.rpartition('/')[0]}/" for path in files if "/" in path}
        self.paths = [*files, *sorted(folders)]
        self._listed = time.monotonic()
        then()
        if servers is not None:
            found = await servers.resources()
            self.paths = [*self.paths, *(f"{server}:{uri}" for server, uri, _ in found)]
            then()
