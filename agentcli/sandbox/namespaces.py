"""Namespaces made without bubblewrap, for level reduced, if the kernel permits them.

Covers: the network (a private one with only loopback), processes (private ids and /proc), System V
    IPC, a private /tmp, /dev and home folder, everything outside the allowlist (sockets too), and
    read-only paths within the workspace, which Landlock cannot express.
Does not cover: system calls and further namespaces: Landlock and seccomp are applied as well.

Runs in the freshly forked child, which still holds capabilities; standard library only.
"""

from __future__ import annotations

import fcntl
import os
import struct
from _socket import AF_INET, SOCK_DGRAM, socket

from agentcli.sandbox import linux
from agentcli.sandbox.bare import signal

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_READ_ONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_RECURSIVE, _SLAVE = 1 << 14, 1 << 19
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def enter(wanted: Mapping[str, Any]) -> bool:
    """Leave the host's namespaces; raises OSError if the kernel refuses.

    Returns in a grandchild. The calling process stays outside and ends as the command ends; the
    first process of the new pid namespace only reaps. The result is True if it took a user
    namespace, in which the kernel counts tasks anew.

    ``wanted``: ``network`` (bool: make a private one), ``base`` and ``empty`` (two empty folders),
    ``links`` (path → target), ``tmpfs`` (path → bytes), ``binds`` (path → its path on the host and
    whether it is writable), ``again`` (path within those → whether it is writable; bound onto
    itself, so that it cannot be renamed) and ``hidden`` (paths that cannot be opened).
    """
    flags = linux.CLONE_NEWIPC | linux.CLONE_NEWNS | linux.CLONE_NEWPID
    if wanted["network"]:
        flags |= linux.CLONE_NEWNET
    uid, gid = os.getuid(), os.getgid()
    of_user = False
    try:
        linux.unshare(flags)
    except PermissionError:
        # An ordinary user needs a user namespace first, and a readable /proc/self to map it.
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        linux.unshare(flags | linux.CLONE_NEWUSER)
        linux.map_user(uid, gid)
        of_user = True
    if wanted["network"]:
        _bring_up_loopback()
    _continue_in_child()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != 0:  # the parent is outside this pid namespace
        os._exit(0)
    _mount(wanted)
    _continue_in_child()
    os.setsid()
    return of_user


def _continue_in_child() -> None:
    """Fork and return in the child; the parent reaps until the child ends, and ends like it."""
    child = os.fork()
    if child == 0:
        return
    os.closerange(0, 1 << 20)
    linux.drop_capabilities()  # the command sees this process, and may be of the same user
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _bring_up_loopback() -> None:
    control = socket(AF_INET, SOCK_DGRAM)
    try:
        request = struct.pack("16sh14x", b"lo", _UP_AND_RUNNING)
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)
    finally:
        control.close()


def _mount(wanted: Mapping[str, Any]) -> None:
    """Build a root folder with only what is wanted, and enter it."""
    linux.mount(None, "/", None, _RECURSIVE | _SLAVE)
    base = wanted["base"]
    linux.mount("tmpfs", base, "tmpfs", _NOSUID | _NODEV, "size=16m,mode=755")
    for target, source in wanted["links"].items():
        os.makedirs(os.path.dirname(base + target), exist_ok=True)
        os.symlink(source, base + target)
    os.mkdir(f"{base}/proc")
    linux.mount("proc", f"{base}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    # The first process is agentcli's own: hide all that /proc shows of it from the command.
    linux.mount("tmpfs", f"{base}/proc/1", "tmpfs", _READ_ONLY | _NOSUID | _NODEV | _NOEXEC)
    _make_devices(base)
    # Outer folders first: a mount hides what was mounted below it before.
    for target in sorted({**wanted["tmpfs"], **wanted["binds"]}):
        if target in wanted["tmpfs"]:
            os.makedirs(base + target, exist_ok=True)
            options = f"size={wanted['tmpfs'][target]},mode=1777"
            linux.mount("tmpfs", base + target, "tmpfs", _NOSUID | _NODEV, options)
        else:
            source, writable = wanted["binds"][target]
            _bind(source, base + target, writable)
    for path, writable in wanted["again"].items():
        if os.path.exists(base + path) and not os.path.islink(base + path):
            _bind(base + path, base + path, writable)
    for path in wanted["hidden"]:
        _bind(f"{base}/dev/null" if os.path.isfile(base + path) else wanted["empty"], base + path)
    linux.enter_root(base)
    linux.mount(None, "/", None, _BIND | _REMOUNT | _READ_ONLY | _NOSUID | _NODEV)


def _bind(source: str, target: str, writable: bool = False) -> None:
    if not os.path.exists(source):
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    linux.mount(source, target, None, _BIND | _RECURSIVE)
    if not writable:
        linux.make_read_only(target)


def _make_devices(base: str) -> None:
    os.makedirs(f"{base}/dev/pts")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        _bind(f"/dev/{name}", f"{base}/dev/{name}", writable=True)
    options = "newinstance,ptmxmode=0666,mode=620"
    linux.mount("devpts", f"{base}/dev/pts", "devpts", _NOSUID | _NOEXEC, options)
    os.symlink("pts/ptmx", f"{base}/dev/ptmx")
    os.symlink("/proc/self/fd", f"{base}/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{base}/dev/{name}")
