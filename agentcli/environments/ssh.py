"""The environment of another machine, through the system's ssh.

Covers: no forwarding (agent, X11, ports), no questions (BatchMode), host keys checked as ssh is
    configured; a command's whole tree is killed when it is out of time or the connection closes.
Does not cover: confinement. Commands and the file worker have the rights of the far end's user;
    the worker stays in the workspace by checking resolved paths.

The far end needs only Python 3.8: ``worker.py``, and ``runner.py`` for each command, are sent over
stdin. All share one connection, which an ssh master process keeps open.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentcli.environments import runner, worker
from agentcli.environments.base import ExecResult, Output
from agentcli.environments.files import WorkerFiles
from agentcli.environments.link import WorkerLink
from agentcli.errors import CapabilityError, EnvironmentOpError
from agentcli.sandbox.limits import COMMAND, Limits
from agentcli.sandbox.process import Launch, SandboxProcess, Supervisor

_OPTIONS = (
    *("-a", "-x", "-T", "-e", "none"),
    *("-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no"),
    *("-o", "PermitLocalCommand=no", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|SSH_AUTH_SOCK|XDG_RUNTIME_DIR|KRB5CCNAME|TMPDIR"
)
_ENDLESS = Limits(time_s=0, memory_bytes=1 << 40)
_CONNECT_S, _GRACE_S = 30.0, 15.0
_HOST = re.compile(r"[A-Za-z0-9_.@%\[\]:-]+")

# Reads exactly the program from stdin: what follows is the program's own input.
_BOOT = """
import os, shutil, sys
if sys.version_info < (3, 8):
    sys.exit("needs Python 3.8, there is " + sys.version.split()[0])
def receive(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data
if len(sys.argv) > 1:
    sys.argv[1:] = [os.path.expanduser(sys.argv[1] or "~"), shutil.which("rg") or "", "1"]
    if not os.path.isdir(sys.argv[1]):
        sys.exit(sys.argv[1] + ": no such folder")
text = receive(int.from_bytes(receive(4), "big"))
exec(compile(text, "agentcli", "exec"), {"__name__": "__main__"})
"""


def split_place(place: str) -> tuple[str, str]:
    """Split ``HOST[:FOLDER]`` into host and folder; an IPv6 address must be in brackets.

    Raises:
        CapabilityError: there is no valid host.
    """
    found = re.fullmatch(r"((?:[^@:/\[\]]+@)?(?:\[[^\]]+\]|[^:/\[\]]+))(?::(.*))?", place, re.S)
    if found is None or found[1].startswith("-") or not _HOST.fullmatch(found[1]):
        raise CapabilityError(f'environment "ssh:{place}": no host', hint="Write ssh:HOST:FOLDER")
    return found[1].replace("[", "").replace("]", ""), found[2] or ""


class SshEnvironment(WorkerFiles):
    """A folder on another machine; ``folder`` is relative to the home folder there, or absolute.

    ``config`` is a file that replaces ssh's configuration. ``root`` is known after ``start``.
    """

    operations = frozenset({"files", "process"})

    def __init__(
        self,
        host: str,
        folder: str = "",
        supervisor: Supervisor | None = None,
        *,
        config: str = "",
    ) -> None:
        self.root = folder
        self.level = f"ssh:{host}"
        self.reason = "commands have the rights of the far end's user"
        self._host = host
        self._config = ("-F", config) if config else ()
        self._supervisor = supervisor or Supervisor()
        self._owns_supervisor = supervisor is None
        self._link: WorkerLink | None = None
        self._processes: list[SandboxProcess] = []
        self._starting = asyncio.Lock()
        self._control = ""
        self._ssh = ""

    async def start(self) -> None:
        """Connect and start the worker.

        Raises:
            CapabilityError: no ssh here, no connection, or no Python or no such folder there.
        """
        self._ssh = shutil.which("ssh") or ""
        if not self._ssh:
            raise CapabilityError(f'environment "{self.level}": ssh is not installed')
        self._supervisor.start()
        self._control = tempfile.mkdtemp(prefix="agentcli-ssh-")  # a socket's path must be short
        await self._connect()
        try:
            value, _ = await (await self._worker()).call("root")
        except EnvironmentOpError as error:
            raise CapabilityError(f'environment "{self.level}": {error.message}') from error
        self.root = str(value)

    async def aclose(self) -> None:
        """End what runs there, and close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        for process in self._processes:
            await process.kill()
        if self._owns_supervisor:
            await self._supervisor.aclose()
        shutil.rmtree(self._control, ignore_errors=True)

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
        """Run a command there; see ``Environment.exec``."""
        request = {
            "argv": list(argv),
            "cwd": os.path.normpath(os.path.join(self.root, cwd or ".")),
            "env": dict(env or {}),
            "stdin": len(stdin or b""),
            "time_s": limits.time_s or 1e9,
            "output_bytes": limits.output_bytes,
            "open_files": limits.open_files,
            "file_bytes": limits.file_bytes,
        }
        text = json.dumps(request).encode()
        reader, writer, process = await self._program(Path(runner.__file__))
        received = _Received(limits, on_output)
        running = asyncio.create_task(received.read(reader))
        try:
            writer.write(struct.pack("!I", len(text)) + text + (stdin or b""))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.wait([running], timeout=(limits.time_s or 1e9) + _GRACE_S)
        finally:
            await asyncio.shield(self._end(writer, running, process))
        if received.verdict is not None:
            return received.result()
        ended = await process.wait()
        lines = ended.stderr.strip().splitlines() or ["the connection was lost"]
        return received.result(error=f"{self.level}: {lines[-1]}")

    async def _end(
        self, writer: asyncio.StreamWriter, running: asyncio.Task[None], process: SandboxProcess
    ) -> None:
        """Let the far end kill what is left of the command, and wait until it says so."""
        if not running.done():
            with contextlib.suppress(OSError):
                writer.write_eof()
            await asyncio.wait([running], timeout=_GRACE_S)
        running.cancel()
        writer.close()
        await process.kill()

    async def _connect(self) -> None:
        """Start the ssh master and wait until it listens."""
        options = ("-M", "-N", "-o", "ControlPersist=no", "-S", f"{self._control}/c")
        line = (self._ssh, *self._config, *_OPTIONS, *options, "--", self._host)
        master = self._supervisor.spawn(Launch(line, self._env(), "/", limits=_ENDLESS))
        self._processes.append(master)
        loop = asyncio.get_running_loop()
        end = loop.time() + _CONNECT_S
        while not os.path.exists(f"{self._control}/c"):
            if master.done or loop.time() > end:
                if not master.done:
                    await master.kill()
                said = (await master.wait()).stderr.strip().splitlines()
                raise CapabilityError(
                    f'environment "{self.level}": {said[-1] if said else "no answer"}',
                    hint="ssh cannot ask questions here: run it yourself once, and use a key",
                )
            await asyncio.sleep(0.02)

    async def _program(
        self, source: Path, *arguments: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, SandboxProcess]:
        """Start ``source``, a file of this package, at the far end, by sending it there."""
        boot = base64.b64encode(_BOOT.encode()).decode()
        quoted = " ".join(shlex.quote(argument) for argument in arguments)
        command = f"exec python3 -I -c \"import base64;exec(base64.b64decode('{boot}'))\" {quoted}"
        shared = ("-o", "ControlMaster=no", "-S", f"{self._control}/c")
        line = (self._ssh, *self._config, *_OPTIONS, *shared, "--", self._host, command)
        ours, theirs = socket.socketpair()
        try:
            fds = {0: theirs.fileno(), 1: theirs.fileno()}
            process = self._supervisor.spawn(
                Launch(line, self._env(), "/", limits=_ENDLESS, fds=fds)
            )
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        text = source.read_bytes()
        writer.write(struct.pack("!I", len(text)) + text)
        return reader, writer, process

    async def _worker(self) -> WorkerLink:
        async with self._starting:
            if self._link is not None and not self._link.closed:
                return self._link
            reader, writer, process = await self._program(Path(worker.__file__), self.root)
            link = WorkerLink(reader, writer)
            try:
                await link.ready()
            except EnvironmentOpError as error:
                await link.aclose()
                await process.kill()
                said = (await process.wait()).stderr.strip().splitlines()
                what = said[-1] if said else "the file worker does not start"
                raise EnvironmentOpError(what, code="EPIPE") from error
            self._processes = [*self._processes[:1], process]
            self._link = link
            return link

    def _env(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}


class _Received:
    """What has been received from one command."""

    def __init__(self, limits: Limits, on_output: Output | None) -> None:
        self.verdict: dict[str, Any] | None = None
        self._limits = limits
        self._on_output = on_output
        self._parts: dict[int, list[bytes]] = {runner.STDOUT: [], runner.STDERR: []}

    async def read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.verdict is None:
                kind, size = runner.HEAD.unpack(await reader.readexactly(runner.HEAD.size))
                payload = await reader.readexactly(size)
                if kind == runner.EXIT:
                    self.verdict = json.loads(payload)
                elif kind == runner.GAP:
                    line = f"\n[... {int(payload[1:])} bytes left out ...]\n"
                    self._parts[payload[0]].append(line.encode())
                else:
                    self._parts[kind].append(payload)
                    if self._on_output is not None:
                        self._on_output("stdout" if kind == runner.STDOUT else "stderr", payload)

    def result(self, error: str | None = None) -> ExecResult:
        verdict = self.verdict or {}
        status = verdict.get("status")
        code = None if status is None else int(status)
        if code is not None and code < 0:
            code = 128 - code
        error = error or verdict.get("error")
        if verdict.get("timed_out"):
            error = f"timed out after {self._limits.time_s:g} s"
        elif code is None and error is None:
            error = "killed"
        out, err = (
            b"".join(self._parts[kind]).decode("utf-8", "replace")
            for kind in (runner.STDOUT, runner.STDERR)
        )
        return ExecResult(
            success=code == 0,
            exit_code=code,
            stdout=out,
            stderr=err,
            error=error,
            timed_out=bool(verdict.get("timed_out")),
            truncated=bool(verdict.get("truncated")),
            duration_s=float(verdict.get("duration_s", 0.0)),
        )
