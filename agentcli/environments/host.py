"""The environment of this machine: each command and the file worker run in separate sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from errno import E2BIG, EACCES, ENOENT
from importlib.machinery import SourceFileLoader

from agentcli.environments.base import ExecResult, Output
from agentcli.environments.files import WorkerFiles
from agentcli.environments.link import WorkerLink
from agentcli.errors import ConfigError, EnvironmentOpError, SandboxError, WorkspaceError
from agentcli.sandbox import ahead, proxy
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level, Sandbox, likeliest, prepare
from agentcli.sandbox.destinations import Destinations
from agentcli.sandbox.limits import COMMAND, Limits
from agentcli.sandbox.policy import Network
from agentcli.sandbox.process import SandboxProcess, Supervisor
from agentcli.sandbox.proxy import Proxy
from agentcli.sandbox.restore import Guard

_CODE_FD = 9
_TOO_LONG = "the command is longer than the system allows; put it into a file and run that"
_LAUNCHERS_OWN = 128 * 1024  # bytes kept free for the command line of bubblewrap
_BOOT = f"import marshal; exec(marshal.load(open({_CODE_FD}, 'rb')))"


class HostEnvironment(WorkerFiles):
    """One workspace on this machine.

    ``wanted`` demands a level (None: the best that works). ``level`` and ``reason`` say which one
    is in effect, and why it is not the full one. ``policy`` replaces the default policy of
    ``root``, which has this ``network`` and, if that is ``allow``, these ``domains``.

    Raises:
        WorkspaceError: the root is not a folder, or it is the whole file system.
        ConfigError: the list of domains is empty or invalid.
    """

    operations = frozenset({"files", "process"})

    def __init__(
        self,
        root: str | os.PathLike[str],
        supervisor: Supervisor | None = None,
        *,
        wanted: Level | None = None,
        policy: policies.Policy | None = None,
        network: Network = "none",
        domains: Sequence[str] = (),
    ) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise WorkspaceError(f"{os.fspath(root)}: no such folder")
        if self.root == "/":
            raise WorkspaceError("/: the whole file system cannot be a workspace")
        self.level: str = wanted or "full"
        self.reason = ""
        self._wanted = wanted
        self._policy = policy
        self._network: Network = policy.network if policy is not None else network
        self._domains = tuple(policy.domains if policy is not None else domains)
        self._proxy: Proxy | None = None
        if self._network == "allow":
            self._destinations = _destinations(self._domains)
        self._supervisor = supervisor or Supervisor()
        self._owns_supervisor = supervisor is None
        self._sandbox: Sandbox | None = None
        self._guard: Guard | None = None
        self._link: WorkerLink | None = None
        self._process: SandboxProcess | None = None
        self._starting = asyncio.Lock()
        self._surveying: asyncio.Task[None] | None = None

    async def start(self, *, worker: bool = True) -> None:
        """Find the best level and start the worker. ``worker=False`` is for commands only.

        Raises:
            SandboxError: the wanted level is not available, or none is.
        """
        self._supervisor.start()
        policy = self._policy
        if policy is None:  # in a thread: it looks at many folders, and a screen may be waiting
            policy = await asyncio.to_thread(
                policies.build, self.root, network=self._network, domains=self._domains
            )
        if worker and (untried := likeliest(policy, self._wanted)) is not None:
            # A worker that answers proves the level, which saves the start of a separate probe.
            self._sandbox = untried
            try:
                await self._worker()
            except SandboxError:
                untried.close()
        if self._link is None:
            self._sandbox = await prepare(self._supervisor, policy, self._wanted)
            if worker:
                await self._worker()
        sandbox = self._ready()
        self._guard = Guard(policy.place_here, policy.quarantine, policy.obeyed, policy.write)
        self.level, self.reason = sandbox.level, sandbox.reason
        if self._network == "allow" and sandbox.level != "none":
            self._proxy = Proxy(self._destinations)

    async def aclose(self) -> None:
        """End the worker, and the supervisor if it is this environment's own."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        if self._proxy is not None:
            await self._proxy.aclose()
        ending = asyncio.create_task(self._end_processes())
        if self._guard is not None and self._guard.busy:
            await ending  # the guard has to look at what the commands did
        # Concurrently, as each takes the kernel 10 ms.
        await asyncio.gather(ending, self._stop_watching())
        if self._sandbox is not None:
            self._sandbox.close()

    async def _end_processes(self) -> None:
        if self._owns_supervisor:
            await self._supervisor.aclose()  # ends the worker too
        elif self._process is not None:
            await self._process.kill()

    async def _stop_watching(self) -> None:
        if self._surveying is not None:
            await asyncio.wait([self._surveying])
        if self._guard is not None:
            await asyncio.to_thread(self._guard.close)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = COMMAND,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        on_output: Output | None = None,
        exact: bool = False,
    ) -> ExecResult:
        """Run a command in the workspace; see ``Environment.exec`` (``Launch`` for ``exact``)."""
        sandbox = self._ready()
        problem = self._cannot_start(argv, cwd, env)
        if problem is not None:
            number, text = problem
            return ExecResult(success=False, exit_code=None, error=text, errno=number)
        if exact and not argv[0].startswith("-"):
            # If it cannot be started inside after all, it ends like in a shell, with 126 or 127.
            argv = (ahead.SHELL, "-c", 'exec "$0" "$@"', *argv)
        guard = self._guard
        assert guard is not None
        if self._surveying is None:  # not earlier: 50,000 folders take two seconds
            self._surveying = asyncio.create_task(asyncio.to_thread(guard.survey))
        await asyncio.shield(self._surveying)
        guard.begin()
        restored: list[str] = []
        try:
            plain = stdin is None and not exact and self._proxy is None
            prepared = sandbox.line(argv, cwd=cwd, env=env, limits=limits) if plain else None
            with self._reach() as (reaching, fds):
                if prepared is not None:
                    process = self._supervisor.spawn_line(*prepared, limits, on_output)
                else:
                    launch = sandbox.launch(
                        proxy.through(argv) if reaching else argv,
                        cwd=cwd,
                        env={**reaching, **(env or {})},
                        limits=limits,
                        stdin=stdin,
                        fds=fds,
                    )
                    process = self._supervisor.spawn(replace(launch, exact=exact), on_output)
                result = await process.wait()
        finally:
            restored = guard.end(read_only=sandbox.keeps_read_only)
        return with_restored(result, restored)

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
        await super().write(path, data, expect=expect, create_parents=create_parents, mode=mode)
        if self._guard is not None:
            self._guard.approve(os.path.relpath(os.path.join(self.root, path), self.root))

    async def remove(self, path: str, *, expect: bytes | None = None) -> None:
        """Remove a file; see ``Environment.remove``."""
        await super().remove(path, expect=expect)
        if self._guard is not None:
            relative = os.path.relpath(os.path.join(self.root, path), self.root)
            self._guard.approve(relative, removed=True)

    @contextlib.contextmanager
    def _reach(self) -> Iterator[tuple[Mapping[str, str], Mapping[int, int]]]:
        """Open a gate to the listed domains for one command; its variables and descriptors."""
        if self._proxy is None:
            yield {}, {}
            return
        gate, far = self._proxy.open()
        try:
            with far:
                yield proxy.ENV, {proxy.LINK_FD: far.fileno()}
        finally:
            gate.close()

    @property
    def mounts(self) -> bool:
        """Whether tools have private mounts, so that a copy can be at the workspace's path."""
        return self._ready().keeps_read_only

    def _ready(self) -> Sandbox:
        if self._sandbox is None:
            raise SandboxError("the environment has not been started")
        return self._sandbox

    def _cannot_start(
        self, argv: Sequence[str], cwd: str | None, env: Mapping[str, str] | None
    ) -> tuple[int, str] | None:
        """The errno and message if the command cannot start; clearer than errors from inside."""
        folder = os.path.join(self.root, cwd or ".")
        if self._ready().policy.copy:
            return None  # only inside do the copy and the folders left out of it form one tree
        if not os.path.isdir(folder):
            named = cwd or f"{self.root} (the workspace)"
            return ENOENT, f"{named}: no such folder"
        variables = {**self._ready().policy.env, **(env or {})}
        if _too_long(argv, variables):
            return E2BIG, _TOO_LONG
        program = argv[0] if "/" not in argv[0] else os.path.join(folder, argv[0])
        if shutil.which(program, path=variables["PATH"]) is None:
            if "/" in argv[0] and os.path.exists(program):
                return EACCES, f"{argv[0]}: not a program that can be run"
            return ENOENT, f"{argv[0]}: no such program"
        return None

    async def _worker(self) -> WorkerLink:
        async with self._starting:
            if self._link is not None and not self._link.closed:
                return self._link
            sandbox = self._ready()
            ours, theirs = socket.socketpair()
            try:
                launch = sandbox.launch(
                    (
                        *(_interpreter(), "-I", "-S", "-c", _BOOT, self.root),
                        _ripgrep(sandbox.policy.path),
                        "1" if sandbox.level == "none" else "",
                    ),
                    limits=Limits(time_s=0),
                    fds={0: theirs.fileno(), 1: theirs.fileno()},
                    files={_CODE_FD: _code()},
                    files_only=True,
                )
                self._process = self._supervisor.spawn(launch)
            finally:
                theirs.close()
            reader, writer = await asyncio.open_connection(sock=ours)
            link = WorkerLink(reader, writer)
            try:
                await link.ready()
            except EnvironmentOpError as error:
                await link.aclose()
                result = await self._process.wait()
                detail = (result.error or result.stderr.strip() or "no reason given").splitlines()
                raise SandboxError(f"the file worker does not start: {detail[-1]}") from error
            self._link = link
            return link


def with_restored(result: ExecResult, restored: Sequence[str]) -> ExecResult:
    """Add what was put back after a command to its result, and to its stderr for the model."""
    if not restored:
        return result
    notes = "".join(f"[agentcli: {line}]\n" for line in restored)
    gap = "" if not result.stderr or result.stderr.endswith("\n") else "\n"
    return replace(result, stderr=result.stderr + gap + notes, restored=tuple(restored))


def _destinations(domains: Sequence[str]) -> Destinations:
    if not domains:
        raise ConfigError(
            'network "allow" needs a list of domains', hint="Name some with --domain, or in domains"
        )
    try:
        return Destinations(domains)
    except ValueError as error:
        raise ConfigError(f"domains: {error}") from error


def _too_long(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether the system would refuse a command just for its length.

    Linux allows 32 pages for one argument, and a quarter of the stack for all of them and the
    environment (execve(2)). Part of that is reserved for bubblewrap's own command line, which
    names every mount.
    """
    sizes = [len(os.fsencode(one)) + 1 for one in argv]
    all_sizes = sizes + [len(os.fsencode(f"{name}={value}")) + 1 for name, value in env.items()]
    pointers = 8 * len(all_sizes)
    return (
        max(sizes) > 32 * os.sysconf("SC_PAGE_SIZE")
        or sum(all_sizes) + pointers > os.sysconf("SC_ARG_MAX") - _LAUNCHERS_OWN
    )


def _interpreter() -> str:
    """The real program of this interpreter, instead of a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


def _ripgrep(path: str) -> str:
    """ripgrep from the search path, or the one installed with this Python; empty if none."""
    beside = os.path.dirname(sys.executable)
    return shutil.which("rg", path=f"{path}{os.pathsep}{beside}") or ""


def _code() -> bytes:
    """The worker's compiled code, from Python's bytecode cache if possible."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
    code = SourceFileLoader("__main__", path).get_code("__main__")
    assert code is not None
    return marshal.dumps(code)
