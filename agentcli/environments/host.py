"""The environment of this machine: commands and the file worker in sandboxes of their own."""

from __future__ import annotations

import asyncio
import marshal
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader

from agentcli.environments.base import ExecResult, Output
from agentcli.environments.files import WorkerFiles
from agentcli.environments.link import WorkerLink
from agentcli.errors import WorkspaceError
from agentcli.sandbox.limits import COMMAND, Limits
from agentcli.sandbox.process import Launch, SandboxProcess, Supervisor


class HostEnvironment(WorkerFiles):
    """One workspace on this machine."""

    operations = frozenset({"files", "process"})

    def __init__(self, root: str | os.PathLike[str], supervisor: Supervisor | None = None) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise WorkspaceError(f"{os.fspath(root)}: no such folder")
        self.level = "none"
        self._supervisor = supervisor or Supervisor()
        self._owns_supervisor = supervisor is None
        self._link: WorkerLink | None = None
        self._process: SandboxProcess | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the supervisor and the worker."""
        self._supervisor.start()
        await self._worker()

    async def aclose(self) -> None:
        """End the worker, and the supervisor if it is this environment's own."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        if self._process is not None:
            await self._process.kill()
        if self._owns_supervisor:
            await self._supervisor.aclose()

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
        """Run a command in the workspace; see ``Environment.exec``."""
        launch = Launch(
            tuple(argv),
            env={"PATH": os.environ.get("PATH", os.defpath), **(env or {})},
            cwd=os.path.join(self.root, cwd or "."),
            limits=limits,
            stdin=stdin,
            disk_path=self.root,
        )
        return await self._supervisor.exec(launch, on_output)

    async def _worker(self) -> WorkerLink:
        async with self._starting:
            if self._link is not None and not self._link.closed:
                return self._link
            ours, theirs = socket.socketpair()
            code = SourceFileLoader(
                "w", os.path.join(os.path.dirname(__file__), "worker.py")
            ).get_code("w")
            boot = "import marshal, sys; exec(marshal.load(open(9, 'rb')))"
            launch = Launch(
                (sys.executable, "-I", "-S", "-c", boot, self.root, shutil.which("rg") or "", "1"),
                env={"PATH": os.defpath},
                limits=Limits(time_s=0),
                fds={0: theirs.fileno(), 1: theirs.fileno()},
                files={9: marshal.dumps(code)},
            )
            self._process = self._supervisor.spawn(launch)
            theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours)
            self._link = WorkerLink(reader, writer)
            return self._link
