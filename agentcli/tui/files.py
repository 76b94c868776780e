"""The files of the workspace, for completion; listed in the background, without ignored ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agentcli.environments.base import Environment
from agentcli.errors import AgentCLIError
from agentcli.tools.mcp.references import Referable

_MOST = 100_000
_FRESH_S = 20.0
"""After this long a new look is taken, when somebody asks."""


class FileIndex:
    """``paths`` are relative to the workspace, folders with a slash at the end; after them come
    the resources of MCP servers, as ``server:uri``."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._listed = 0.0
        self._task: asyncio.Task[None] | None = None

    def refresh(
        self, environment: Environment, servers: Referable | None, then: Callable[[], None]
    ) -> None:
        """List anew in the background, unless that happened a moment ago; ``then`` is called when
        there is something new."""
        running = self._task is not None and not self._task.done()
        if running or time.monotonic() - self._listed < _FRESH_S:
            return
        self._task = asyncio.create_task(self._list(environment, servers, then))

    def forget(self) -> None:
        """Files may have changed: the next ``refresh`` lists anew."""
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
