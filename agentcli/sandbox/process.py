"""The supervisor's client: starts commands, streams their output, kills whole process trees.

    supervisor = Supervisor()
    supervisor.start()                       # returns at once; do it before any thread exists
    result = await supervisor.exec(Launch(("pytest", "-q"), env=..., cwd=...))

Any number of commands may run at once. Cancelling the task that awaits ``exec`` kills the
command's whole tree before the cancellation proceeds.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentcli.errors import EnvironmentOpError, SandboxError
from agentcli.sandbox import protocol
from agentcli.sandbox.limits import COMMAND, Limits, amount

Output = Callable[[str, bytes], None]

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from agentcli.sandbox.{} import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])"
)
_ROOT = str(Path(__file__).resolve().parents[2])
_NAMES = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended.

    ``exit_code`` is 128 + the signal's number if a signal killed the command, and None if a limit
    ended it or it never ran; ``error`` then says why in one line. ``truncated`` means that the
    middle of a long output is missing; a line in the text says how much. Bytes that are not UTF-8
    become U+FFFD. ``restored`` has one line for each path that the command changed, that the host
    would obey, and that was put back. ``errno`` is the system's error number if the command could
    not be started, else 0.
    """

    success: bool
    exit_code: int | None
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    timed_out: bool = False
    memory_exceeded: bool = False
    truncated: bool = False
    duration_s: float = 0.0
    restored: tuple[str, ...] = ()
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """One command, with everything the supervisor needs to start it.

    ``fds`` maps descriptor numbers of the command to open descriptors here, which the caller still
    closes. Without 0, stdin is ``stdin`` or /dev/null. ``files`` maps descriptor numbers to bytes
    that the command can read there. ``seccomp`` is a BPF program, ``landlock`` its rules,
    ``namespaces`` what ``namespaces.enter`` takes; ``confine`` drops capabilities and forbids new
    privileges. ``disk_path`` is where growth of the disk is measured. A ``time_s`` of 0 in
    ``limits`` means no time limit. Readers of the output also get samples of what the result will
    leave out, unless ``exact`` is set. ``made_of`` is a number that changes with the files and
    folders that the launch shows (``ahead.Sources``). ``worker`` marks agentcli's own file worker.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    limits: Limits = COMMAND
    stdin: bytes | None = None
    capture: bool = True
    fds: Mapping[int, int] = field(default_factory=dict)
    files: Mapping[int, bytes] = field(default_factory=dict)
    seccomp: bytes | None = None
    landlock: Mapping[str, Any] | None = None
    namespaces: Mapping[str, Any] | None = None
    confine: bool = False
    disk_path: str | None = None
    exact: bool = False
    made_of: int = 0
    worker: bool = False


class SandboxProcess:
    """A running command. ``await wait()`` for its result; ``kill()`` kills its whole tree."""

    def __init__(self, supervisor: Supervisor, number: int, launch: Launch) -> None:
        loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._number = number
        self._launch = launch
        self._parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._on_output: Output | None = None
        self._done: asyncio.Future[ExecResult] = loop.create_future()

    @property
    def done(self) -> bool:
        """Whether the command has ended."""
        return self._done.done()

    async def wait(self) -> ExecResult:
        """Wait for the result. Cancelling this kills the command before it proceeds."""
        try:
            return await asyncio.shield(self._done)
        except asyncio.CancelledError:
            await self.kill()
            raise

    async def kill(self) -> None:
        """Kill the whole tree; returns when no process is left. Cancelling takes effect then."""
        if not self._done.done():
            self._supervisor._send_kill(self._number)
        cancelled: asyncio.CancelledError | None = None
        while not self._done.done():
            try:
                await asyncio.wait([self._done])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _output(self, kind: int, payload: bytes) -> None:
        name = _NAMES[kind & ~protocol.MARKS]
        if kind & protocol.GAP:
            payload = f"\n[... {int(payload)} bytes left out ...]\n".encode()
        if not kind & protocol.SAMPLE:
            self._parts[name].append(payload)
        unseen = protocol.SAMPLE if self._launch.exact else protocol.TAIL | protocol.GAP
        if self._on_output is not None and not kind & unseen:
            try:
                self._on_output(name, payload)
            except Exception as error:  # a failing reader must not stop the other commands
                self._on_output = None
                context = {"message": "a reader of a command's output failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

    def _ended(self, verdict: Mapping[str, Any]) -> None:
        limits = self._launch.limits
        status = verdict.get("status")
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if code is not None and code < 0:
            code = 128 - code
        error = verdict.get("error")
        timed_out = bool(verdict.get("timed_out"))
        memory_exceeded = bool(verdict.get("memory_exceeded"))
        if error is not None:
            code = None
        elif timed_out:
            error = f"timed out after {limits.time_s:g} s"
        elif memory_exceeded:
            error = f"used more than {amount(limits.memory_bytes)} of memory"
        elif verdict.get("disk_exceeded"):
            error = f"wrote more than {amount(limits.disk_bytes)}"
        elif "exceeded" in verdict:
            error = f"used {verdict['exceeded']}"
        elif code is None:
            error = "killed"
        elif code == 128 + signal.SIGXFSZ:
            error = f"wrote a file of more than {amount(limits.file_bytes)}"
        texts = {
            name: b"".join(parts).decode("utf-8", "replace") for name, parts in self._parts.items()
        }
        result = ExecResult(
            success=code == 0,
            exit_code=code,
            stdout=texts["stdout"],
            stderr=texts["stderr"],
            error=error,
            timed_out=timed_out,
            memory_exceeded=memory_exceeded,
            truncated=bool(verdict.get("dropped")),
            duration_s=float(verdict.get("duration_s", 0.0)),
            errno=int(verdict.get("errno", 0)),
        )
        if not self._done.done():
            self._done.set_result(result)

    def _lost(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(EnvironmentOpError(reason, code="EPIPE"))
            self._done.exception()  # marks it as retrieved, since nobody may be awaiting it


class Supervisor:
    """Starts the supervisor process and talks to it. Belongs to one event loop at a time."""

    module = "supervisor"
    """The module of this package whose ``main`` the process runs."""

    def __init__(self, *arguments: str) -> None:
        """``arguments`` are passed on to ``main``."""
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoder = protocol.Decoder()
        self._outbox: deque[tuple[memoryview, list[int]]] = deque()
        self._commands: dict[int, SandboxProcess] = {}
        self._next = 1
        self._fault = ""
        self._template: Launch | None = None

    def start(self) -> None:
        """Start the process and return at once. Does nothing if the process is running.

        Raises:
            SandboxError: the process cannot be started at all.
        """
        if self._process is not None and self._process.poll() is None and self._link is not None:
            return
        self._detach()
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        argv = [sys.executable, "-I", "-S", "-c", _BOOT.format(self.module), _ROOT]
        argv += [str(number), str(os.getpid()), *self._arguments]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(number,),
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"the sandbox supervisor cannot be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._decoder = protocol.Decoder()
        self._outbox.clear()
        self._fault = ""
        self._template = None

    async def exec(self, launch: Launch, on_output: Output | None = None) -> ExecResult:
        """Run a command and wait for its end.

        Raises:
            EnvironmentOpError: the supervisor itself ended; the next call starts a new one.
        """
        process = self.spawn(launch, on_output)
        return await process.wait()

    def spawn(self, launch: Launch, on_output: Output | None = None) -> SandboxProcess:
        """Start a command; must be called in a running event loop."""
        process = self._new_process(launch, on_output)
        self._send_launch(protocol.SPAWN, process._number, launch)
        return process

    def spawn_line(
        self, template: Launch, line: bytes, limits: Limits, on_output: Output | None = None
    ) -> SandboxProcess:
        """Start a command by sending its line to a shell that may be waiting; see ``ahead.py``.

        ``template`` is the launch of the shell. ``limits`` are the command's own; only their time
        may differ from the template's.
        """
        process = self._new_process(replace(template, limits=limits), on_output)
        if template != self._template:
            self._send_launch(protocol.TEMPLATE, 0, template)
            self._template = template
        order = {"line": line, "limits": asdict(limits)}
        self._send(protocol.LINE, process._number, marshal.dumps(order), [])
        return process

    def _new_process(self, launch: Launch, on_output: Output | None) -> SandboxProcess:
        self.start()
        self._attach()
        number = self._next
        self._next += 1
        process = SandboxProcess(self, number, launch)
        process._on_output = on_output
        self._commands[number] = process
        return process

    def _send_launch(self, kind: int, number: int, launch: Launch) -> None:
        files = dict(launch.files)
        if launch.stdin is not None:
            files[0] = launch.stdin
        made = {target: _memory_file(data) for target, data in files.items()}
        fds = {**launch.fds, **made}
        request = {
            "argv": list(launch.argv),
            "env": dict(launch.env),
            "cwd": launch.cwd,
            "limits": asdict(launch.limits),
            "fds": list(fds),
            "capture": launch.capture,
            "seccomp": launch.seccomp,
            "landlock": launch.landlock,
            "namespaces": launch.namespaces,
            "confine": launch.confine,
            "disk_path": launch.disk_path,
            "worker": launch.worker,
        }
        # Duplicates, since the caller may close its own before the frame is sent.
        passed = [os.dup(descriptor) for descriptor in launch.fds.values()] + list(made.values())
        self._send(kind, number, marshal.dumps(request), passed)

    async def aclose(self) -> None:
        """End all commands and the supervisor, and wait until it is gone."""
        process = self._process
        self._detach()
        if process is not None:
            await asyncio.to_thread(process.wait)
        self._process = None

    def close(self) -> None:
        """The same without an event loop; blocks."""
        process = self._process
        self._detach()
        if process is not None:
            process.wait()
        self._process = None

    @property
    def pid(self) -> int | None:
        """The supervisor's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def _attach(self) -> None:
        """Have the running loop watch the socket, instead of an earlier loop."""
        loop = asyncio.get_running_loop()
        if self._loop is loop or self._link is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
        self._commands.clear()
        self._loop = loop
        loop.add_reader(self._link, self._readable)

    def _detach(self, reason: str = "the sandbox was closed") -> None:
        link, self._link = self._link, None
        loop, self._loop = self._loop, None
        if link is not None:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(link)
                loop.remove_writer(link)
            link.close()
        for _, passed in self._outbox:
            _close_all(passed)
        self._outbox.clear()
        commands, self._commands = self._commands, {}
        for process in commands.values():
            process._lost(reason)

    def _send_kill(self, number: int) -> None:
        if self._link is not None:
            self._send(protocol.KILL, number, b"", [])

    def _send(self, kind: int, number: int, payload: bytes, passed: list[int]) -> None:
        self._outbox.append((memoryview(protocol.encode(kind, number, payload)), passed))
        self._writable()

    def _writable(self) -> None:
        link, loop = self._link, self._loop
        if link is None or loop is None:
            return
        try:
            while self._outbox:
                data, passed = self._outbox[0]
                sent = socket.send_fds(link, [data], passed) if passed else link.send(data)
                _close_all(passed)
                if sent == len(data):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = (data[sent:], [])
        except BlockingIOError:
            loop.add_writer(link, self._writable)
            return
        except OSError:
            pass  # the reader will notice the end
        loop.remove_writer(link)

    def _readable(self) -> None:
        assert self._link is not None
        try:
            data = self._link.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            cause = f": {self._fault}" if self._fault else ""
            self._detach(f"the sandbox supervisor ended unexpectedly{cause}")
            return
        for kind, number, payload in self._decoder.feed(data):
            if kind == protocol.FAULT:
                self._fault = payload.decode("utf-8", "replace")
            process = self._commands.get(number)
            if process is None:
                continue
            if kind == protocol.EXIT:
                del self._commands[number]
                process._ended(marshal.loads(payload))
            else:
                process._output(kind, payload)


def _memory_file(data: bytes) -> int:
    """A descriptor of an unnamed file that holds ``data``, positioned at its start."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("agentcli", os.MFD_CLOEXEC)
        _write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return os.dup(file.fileno())


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
