"""The sandbox of one workspace: chooses its level, and wraps commands for it.

full      bubblewrap's namespaces + seccomp + limits
reduced   Landlock + seccomp + limits (no bubblewrap, or no user namespaces); on macOS sandbox-exec
none      limits only, and only on request

A level counts as available once a command has run in it, not because a file exists. The best
available one is used unless one is requested. That choice is the user's, never the model's.

Covers: the choice of a level, and that every launch has all of its mechanisms.
Does not cover: what the mechanisms themselves leave open; the module of each says what.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from agentcli.errors import SandboxError
from agentcli.sandbox import advice, ahead, bwrap, etc, landlock, macos, seccomp, tree
from agentcli.sandbox.limits import COMMAND, Limits
from agentcli.sandbox.policy import Policy
from agentcli.sandbox.process import ExecResult, Launch, Supervisor
from agentcli.sandbox.removal import remove, remove_abandoned

Level = Literal["full", "reduced", "none"]

_SCRATCH = "agentcli-scratch-"
_NO_BWRAP = "bubblewrap is not installed"
_ASKED_FOR = "the reduced level was asked for"


class Sandbox:
    """A policy and the level that enforces it. ``reason`` says in a line why it is not full."""

    def __init__(
        self,
        policy: Policy,
        level: Level,
        reason: str = "",
        *,
        old: bool = False,
        own_namespaces: bool = False,
    ) -> None:
        """``old`` is for bubblewrap before 0.8; ``own_namespaces`` for level reduced on Linux."""
        self.policy = policy
        self.level: Level = level
        self.reason = reason
        self.own_namespaces = own_namespaces
        self._old = old
        self._scratch: str | None = None
        self._sources = ahead.Sources()

    def launch(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        limits: Limits = COMMAND,
        stdin: bytes | None = None,
        capture: bool = True,
        fds: Mapping[int, int] | None = None,
        files: Mapping[int, bytes] | None = None,
        files_only: bool = False,
    ) -> Launch:
        """Wrap a command; ``cwd`` is relative to the workspace or absolute.

        ``files_only`` is for the file worker: nothing but the workspace is writable.
        """
        folder = os.path.normpath(os.path.join(self.policy.workspace, cwd or "."))
        plain = Launch(
            tuple(argv),
            {**self.policy.env, **(env or {})},
            folder,
            limits=limits,
            stdin=stdin,
            capture=capture,
            fds=fds or {},
            files=files or {},
            disk_path=self.policy.place,
            worker=files_only,
        )
        if self.level == "none":
            return plain
        if self.level == "full":
            return self._by_bubblewrap(plain, folder)
        if sys.platform == "darwin":
            return self._by_sandbox_exec(plain)
        return self._by_landlock(plain)

    def _by_bubblewrap(self, plain: Launch, folder: str) -> Launch:
        executable = bwrap.program()
        if executable is None:
            raise SandboxError("bubblewrap has gone", hint=advice.for_full())
        line = bwrap.arguments(
            self.policy,
            folder,
            plain.argv if plain.worker else _counted(plain.argv, plain.limits, plain.env),
            executable=executable,
            files_only=plain.worker,
            old=self._old,
        )
        files = {
            **plain.files,
            bwrap.SECCOMP_FD: _filter(self.policy, apart=True),
            bwrap.GITCONFIG_FD: self.policy.gitconfig,
        }
        apart = {"scope": True} if _shares_abstract_sockets(self.policy) else None
        return replace(plain, argv=tuple(line), cwd="/", files=files, landlock=apart)

    def _by_sandbox_exec(self, plain: Launch) -> Launch:
        scratch = self._private_folders()
        home, tmp = (os.path.realpath(f"{scratch}/{name}") for name in ("home", "tmp"))
        line = macos.arguments(self.policy, plain.argv, (home, tmp), files_only=plain.worker)
        return replace(plain, argv=tuple(line), env={**plain.env, "HOME": home, "TMPDIR": tmp})

    def _by_landlock(self, plain: Launch) -> Launch:
        scratch = self._private_folders()
        if self.own_namespaces:
            env, namespaces = plain.env, _namespaces(self.policy, scratch, plain.worker)
            private = [self.policy.home, "/tmp", "/dev/shm"]
        else:
            env = {**plain.env, "HOME": f"{scratch}/home", "TMPDIR": f"{scratch}/tmp"}
            namespaces = None
            private = [f"{scratch}/home", f"{scratch}/tmp", "/dev/shm"]
        return replace(
            plain,
            env=env,
            seccomp=_filter(self.policy, apart=self.own_namespaces),
            landlock=_rules(self.policy, [] if plain.worker else private, self.own_namespaces),
            namespaces=namespaces,
            confine=True,
        )

    def line(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        limits: Limits = COMMAND,
    ) -> tuple[Launch, bytes] | None:
        """The same as a template and a line for ``Supervisor.spawn_line``; None if impossible."""
        folder = os.path.normpath(os.path.join(self.policy.workspace, cwd or "."))
        inside = None if folder == self.policy.workspace else folder
        line = ahead.line(argv, inside, env or {})
        if line is None:
            return None
        launch = self.launch((ahead.SHELL,), limits=replace(limits, time_s=0))
        paths = ahead.sources(launch.argv, launch.namespaces, launch.landlock)
        return replace(launch, made_of=self._sources.number(map(self.policy.here, paths))), line

    @property
    def keeps_read_only(self) -> bool:
        """Whether what the host obeys (``restore.OBEYED``) is read-only for commands."""
        return self.level == "full" or self.own_namespaces

    def close(self) -> None:
        """Remove the private folders of the reduced level."""
        self._sources.close()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            remove(scratch)

    def _private_folders(self) -> str:
        if self._scratch is None:
            remove_abandoned(tempfile.gettempdir(), _SCRATCH)
            self._scratch = tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-")
            for name in ("home", "tmp", "base", "empty"):
                os.mkdir(os.path.join(self._scratch, name), 0o700)
            with open(os.path.join(self._scratch, "home", ".gitconfig"), "wb") as file:
                file.write(self.policy.gitconfig)
        return self._scratch


def likeliest(policy: Policy, wanted: Level | None = None) -> Sandbox | None:
    """What ``prepare`` will most probably find, untested: the first command in it is the test.

    None if no level looks available, or if there is nothing to test.
    """
    if sys.platform != "linux" or wanted == "none" or not seccomp.supported():
        return None
    if wanted != "reduced" and bwrap.program() is not None:
        return Sandbox(policy, "full")
    if wanted == "full" or _missing_for_reduced():
        return None
    reason = _ASKED_FOR if wanted else _instead_of_full(_NO_BWRAP)
    return Sandbox(policy, "reduced", reason, own_namespaces=True)


def _instead_of_full(reason: str) -> str:
    return f"{reason}; for the full level, {advice.for_full()}"


async def prepare(supervisor: Supervisor, policy: Policy, wanted: Level | None = None) -> Sandbox:
    """The best level that works, or the one that is ``wanted``.

    Raises:
        SandboxError: ``wanted`` does not work here, or no level except ``none`` does.
    """
    if wanted == "none":
        return Sandbox(policy, "none", "the sandbox is switched off")
    reason = ""
    if wanted != "reduced":
        full, reason = await try_full(supervisor, policy)
        if full is not None:
            return full
        if wanted == "full":
            raise SandboxError(
                f"the full sandbox is not available here: {reason}", hint=advice.for_full()
            )
        said = _instead_of_full(reason)
    else:
        reason = said = _ASKED_FOR
    reduced, missing = await try_reduced(supervisor, policy, said)
    if reduced is not None:
        return reduced
    raise SandboxError(
        f"no sandbox works here: {reason}; {missing}",
        hint=f"{advice.for_full()}, or run without one (--no-sandbox)",
    )


async def try_full(supervisor: Supervisor, policy: Policy) -> tuple[Sandbox | None, str]:
    """The full level if a command runs in it, else None and the reason."""
    if sys.platform != "linux":
        return None, f"namespaces need Linux, this is {sys.platform}"
    if not seccomp.supported():
        return None, f"no system-call filter for {os.uname().machine}"
    if bwrap.program() is None:
        return None, _NO_BWRAP
    candidates = [Sandbox(policy, "full", old=old) for old in (False, True)]
    return await _first_that_runs(supervisor, candidates)


async def try_reduced(
    supervisor: Supervisor, policy: Policy, reason: str
) -> tuple[Sandbox | None, str]:
    """The reduced level, with ``reason`` as its own, if a command runs in it; else why not."""
    if missing := _missing_for_reduced():
        return None, missing
    on_linux = sys.platform == "linux"
    own_network = on_linux and policy.network in ("loopback", "allow")
    kinds = [True] if own_network else [True, False] if on_linux else [False]
    candidates = [Sandbox(policy, "reduced", reason, own_namespaces=own) for own in kinds]
    sandbox, why_not = await _first_that_runs(supervisor, candidates)
    if sandbox is None and own_network:
        why_not = f"the kernel gives no namespaces, which network {policy.network} needs"
    return sandbox, why_not


async def _first_that_runs(
    supervisor: Supervisor, candidates: Sequence[Sandbox]
) -> tuple[Sandbox | None, str]:
    """The first sandbox in which a command runs; else None and why the last one fails."""
    why_not = ""
    for sandbox in candidates:
        launch = sandbox.launch(("/bin/sh", "-c", "exit 0"), limits=Limits(time_s=10))
        result = await supervisor.exec(launch)
        if result.success:
            return sandbox, ""
        sandbox.close()
        why_not = _first_line(result)
    return None, why_not


def _missing_for_reduced() -> str:
    """What this machine visibly lacks for the reduced level; empty if nothing."""
    if sys.platform == "darwin":
        return "" if os.access(macos.PROGRAM, os.X_OK) else f"there is no {macos.PROGRAM}"
    if sys.platform != "linux":
        return f"Landlock needs Linux, this is {sys.platform}"
    if landlock.version() == 0:
        return "the kernel has no Landlock, or it is switched off"
    return "" if seccomp.supported() else f"no system-call filter for {os.uname().machine}"


def _first_line(result: ExecResult) -> str:
    text = result.error or result.stderr.strip() or f"exit code {result.exit_code}"
    return text.splitlines()[0]


def _counted(argv: Sequence[str], limits: Limits, env: Mapping[str, str]) -> Sequence[str]:
    """Wrap the command in a limit of tasks that is set inside, where the kernel counts anew.

    Outside, it counts all tasks of an ordinary user, and never those of root. Depending on the
    shell, the option of ``ulimit`` is u or p.
    """
    if os.getuid() == 0 or argv[0].startswith("-") or not ahead.passes_on(env):
        return argv
    most = limits.tasks + tree.SPARE_TASKS
    script = f'{{ ulimit -u {most} || ulimit -p {most}; }} 2>/dev/null; exec "$@"'
    return (ahead.SHELL, "-c", script, ahead.SHELL, *argv)


def _filter(policy: Policy, *, apart: bool) -> bytes:
    """The system-call filter, which permits only socket families that cannot reach outside.

    ``apart`` means that the command has private namespaces.
    """
    unguarded = policy.network == "full" and landlock.version() < landlock.ABSTRACT_SOCKETS
    if apart and not unguarded:
        families = [seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK]
    elif policy.network == "full":
        # AF_UNIX could reach sockets of the host: abstract ones, whose names belong to the network
        # namespace, and without a private mount namespace those in the file system too.
        families = [seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK]
    else:
        families = []
    return _build(tuple(families), apart)


def _shares_abstract_sockets(policy: Policy) -> bool:
    """Whether the host's abstract sockets are in reach, and Landlock is there to deny them.

    Their names belong to the network namespace, which is the host's own here.
    """
    return policy.network == "full" and landlock.version() >= landlock.ABSTRACT_SOCKETS


@functools.cache
def _build(families: tuple[int, ...], attach: bool) -> bytes:
    return seccomp.build(families, attach=attach)


def _namespaces(policy: Policy, scratch: str, files_only: bool) -> dict[str, object]:
    """What the command can see, as ``namespaces.enter`` takes it."""
    system = [path for path in policy.system if os.path.isdir(path)]
    binds = {path: (path, False) for path in (*system, *policy.read, "/sys/devices/system")}
    binds["/etc"] = (policy.etc, False)
    binds[policy.home] = (f"{scratch}/home", True)
    binds.update({path: (path, True) for path in policy.write})
    binds[policy.workspace] = (policy.place, True)
    if policy.network == "full" and os.path.islink("/etc/resolv.conf"):
        target = os.path.realpath("/etc/resolv.conf")
        binds[target] = (target, False)
    links = {path: os.readlink(path) for path in policy.system if os.path.islink(path)}
    links["/var/tmp"] = "../tmp"
    closed = [os.path.join(policy.workspace, name) for name in bwrap.closed(policy, files_only)]
    return {
        "network": policy.network != "full",
        "base": f"{scratch}/base",
        "empty": f"{scratch}/empty",
        "links": links,
        "tmpfs": {"/tmp": bwrap.TMP_BYTES, "/dev/shm": bwrap.SHM_BYTES},
        "binds": {path: bind for path, bind in binds.items() if path not in links},
        "again": {
            os.path.join(policy.workspace, ".git"): not policy.copy,
            **dict.fromkeys(closed, False),
            **bwrap.git_mounts(policy),
        },
        "hidden": bwrap.masked(policy),
    }


def _rules(policy: Policy, private: list[str], own_namespaces: bool) -> dict[str, object]:
    """Landlock's allowlist for a policy."""
    # The copy of /etc, or parts of the real one.
    shown = ["/etc"] if own_namespaces else etc.shown(etc.survey())
    return {
        "read": [*policy.system, *policy.read, "/proc", "/sys/devices/system", *shown],
        # A private root folder holds nothing that could not be read anyway.
        "list": ["/" if own_namespaces else "/etc"],
        "write": [policy.workspace, *policy.write, *private],
        "devices": [
            f"/dev/{name}"
            for name in ("null", "zero", "full", "random", "urandom", "ptmx", "pts", "tty")
        ],
        "tcp": own_namespaces or policy.network == "full",
    }
