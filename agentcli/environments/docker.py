"""Runs commands in containers of an image, by the CLI of Docker or Podman.

Covers: the network (none, or the CLI's default), capabilities (none), gaining privileges, the
    image's own files (read-only), everything on this machine except the workspace, other
    processes, memory, tasks and open files; what a command left that the host would obey
    (``restore.py``).
Does not cover: what anyone who can reach the daemon can do anyway; the kernel, which is shared.

Each command gets its own container, so that removing it ends everything the command has started.
Its /tmp is removed with it. File tools use the host's confined worker on the workspace, since
images may lack Python.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
import resource
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentcli.environments.base import ExecResult, Output
from agentcli.environments.host import HostEnvironment, with_restored
from agentcli.errors import CapabilityError
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import COMMAND, MIB, Limits
from agentcli.sandbox.process import Launch, Supervisor
from agentcli.sandbox.restore import OBEYED, Guard

PROGRAMS = ("docker", "podman")
_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TMPDIR|XDG_(RUNTIME_DIR|CONFIG_HOME|DATA_HOME|CACHE_HOME)"
    r"|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS_VERIFY|TLS)|CONTAINER(S)?_\w+|DBUS_SESSION_BUS_ADDRESS"
)
_CLI = Limits(time_s=60)
_TMP_BYTES = 1 << 30
_CHILD = '"$@"; exit $?'
"""The shell remains pid 1 of the container, which only gets the signals that it handles."""
_DID_NOT_RUN = {125, 126, 127}
"""Exit codes with which the CLI says that the command never started."""


class DockerEnvironment(HostEnvironment):
    """One workspace on this machine, with commands in an image; no network by default.

    ``program``, a CLI with its leading options, replaces the first installed one of PROGRAMS.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image: str,
        supervisor: Supervisor | None = None,
        *,
        wanted: Level | None = None,
        open_network: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        super().__init__(root, supervisor, wanted=wanted)
        self._network_options = () if open_network else ("--network", "none")
        self.image = image
        self._cli = tuple(program)
        self._watch: Guard | None = None

    async def start(self, *, worker: bool = True) -> None:
        """Start the file worker, and check that a container of the image runs.

        Raises:
            CapabilityError: no CLI, no daemon, no such local image, or no container starts.
            SandboxError: the file worker's level is not available.
        """
        found = self._cli or next(((p,) for name in PROGRAMS if (p := shutil.which(name))), ())
        if not found:
            raise CapabilityError(
                f'environment "docker:{self.image}": neither docker nor podman is installed',
                hint="Install one of them, or use --env host",
            )
        self._cli = found
        if self.image.startswith("-"):
            raise CapabilityError(f'"{self.image}" is not the name of an image')
        await super().start(worker=worker)
        self._watch = Guard(self.root, self._ready().policy.quarantine)
        await self._check_image()
        self.level = f"docker:{self.image}"
        self.reason = ""

    @property
    def mounts(self) -> bool:
        """False: a copy cannot be mounted at the workspace's path here."""
        return False

    async def _check_image(self) -> None:
        looked = await self._run_cli("image", "inspect", "--format", "{{.Id}}", self.image)
        if not looked.success:
            name = os.path.basename(self._cli[0])
            what = _last_line(looked)
            there = "no such image" not in what.lower() and "not known" not in what.lower()
            hint = f"Is {name} running?" if there else f"Get it first: {name} pull {self.image}"
            raise CapabilityError(f'environment "docker:{self.image}": {what}', hint=hint)
        probe = await self.exec(("/bin/sh", "-c", "exit 0"), limits=replace(COMMAND, time_s=60))
        if not probe.success:
            what = probe.error or _last_line(probe)
            raise CapabilityError(f'environment "docker:{self.image}": no container starts: {what}')

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
        """Run a command in a new container; see ``Environment.exec``."""
        folder = os.path.normpath(os.path.join(self.root, cwd or "."))
        if not os.path.isdir(folder):
            return ExecResult(False, None, error=f"{cwd or self.root}: no such folder")
        name = f"agentcli-{secrets.token_hex(8)}"
        line = (*self._cli, *self._options(name, argv, limits, folder, env, stdin is not None))
        # The limits are the container's; of them only the time applies to the CLI.
        launch = Launch(
            line,
            self._cli_env(),
            "/",
            limits=replace(limits, memory_bytes=1 << 40, tasks=1 << 16, open_files=1 << 16),
            stdin=stdin,
        )
        guard = self._watch
        assert guard is not None
        guard.begin()
        ended = False
        restored: list[str] = []
        try:
            result = await self._supervisor.exec(launch, on_output)
            ended = result.exit_code is not None and result.exit_code not in _DID_NOT_RUN
        finally:
            if not ended:  # with a daemon, the container outlives the CLI
                await asyncio.shield(self._run_cli("rm", "-f", name))
            restored = guard.end(read_only=False)
        return with_restored(_as_not_started(result, argv[0]), restored)

    async def aclose(self) -> None:
        """See ``HostEnvironment.aclose``."""
        await super().aclose()
        if self._watch is not None:
            await asyncio.to_thread(self._watch.close)

    def _options(
        self,
        name: str,
        argv: Sequence[str],
        limits: Limits,
        folder: str,
        env: Mapping[str, str] | None,
        interactive: bool,
    ) -> list[str]:
        line = ["run", "--rm", "--name", name, "--label", "agentcli=1", "--pull", "never"]
        line += [*self._network_options, "--cap-drop", "ALL"]
        line += ["--security-opt", "no-new-privileges", "--read-only"]
        line += ["--tmpfs", f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={_TMP_BYTES}"]
        line += ["--user", f"{os.getuid()}:{os.getgid()}"]
        if os.getuid() != 0 and os.path.basename(self._cli[0]) == "podman":
            line += ["--userns", "keep-id"]
        memory = str(limits.memory_bytes)
        line += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.tasks)]
        files = _at_most(resource.RLIMIT_NOFILE, limits.open_files)
        line += ["--ulimit", f"nofile={files}:{files}"]
        # Podman's default may exceed the hard limit; --pids-limit is what bounds tasks.
        processes = _at_most(resource.RLIMIT_NPROC, 16384)
        line += ["--ulimit", f"nproc={processes}:{processes}"]
        line += ["--ulimit", "core=0:0", "--ulimit", f"fsize={limits.file_bytes}"]
        line += ["--shm-size", str(512 * MIB), "--mount", _mount(self.root)]
        for obeyed in OBEYED:
            path = os.path.join(self.root, obeyed)
            if os.path.exists(path) and not os.path.islink(path):
                line += ["--mount", _mount(path, read_only=True)]
        line += ["--workdir", folder]
        for key, value in {"HOME": "/tmp", "LANG": "C.UTF-8", **(env or {})}.items():
            line += ["--env", f"{key}={value}"]
        if interactive:
            line.append("--interactive")
        return [*line, "--entrypoint", "/bin/sh", self.image, "-c", _CHILD, "sh", *argv]

    async def _run_cli(self, *arguments: str) -> ExecResult:
        return await self._supervisor.exec(
            Launch((*self._cli, *arguments), self._cli_env(), "/", limits=_CLI)
        )

    def _cli_env(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}


def _at_most(what: int, wanted: int) -> int:
    """``wanted``, but at most this process's hard limit."""
    hard = resource.getrlimit(what)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _mount(path: str, *, read_only: bool = False) -> str:
    """The value of --mount, which is a line of CSV: quoted, so that no path can add an option."""
    line = io.StringIO()
    fields = ["type=bind", f"source={path}", f"target={path}"]
    csv.writer(line, lineterminator="").writerow(fields + (["readonly"] if read_only else []))
    return line.getvalue()


def _last_line(result: ExecResult) -> str:
    lines = (result.error or result.stderr or result.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {result.exit_code}"


def _as_not_started(result: ExecResult, program: str) -> ExecResult:
    """Turn a failure of the CLI itself into that of a command that never started."""
    if result.exit_code not in _DID_NOT_RUN:
        return result
    said = result.stderr.strip().splitlines()
    if result.exit_code == 125:
        error = next((line for line in said if re.match(r"(Error|docker): ", line)), "")
    else:
        missing = len(said) == 1 and re.search(rf"\b{re.escape(program)}: .*not found$", said[0])
        error = f"{program}: no such program" if missing and not result.stdout else ""
    if not error:
        return result  # the command's own exit code
    return replace(result, success=False, exit_code=None, error=error, duration_s=0.0)
