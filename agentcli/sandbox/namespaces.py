"""Namespaces of our own making, for level reduced where the kernel allows them.

Covers: the network (an own one with only loopback), processes (own ids and /proc), System V IPC, a
    private /tmp and /dev/shm, and read-only places within the workspace, which Landlock cannot
    express.
Does not cover: what bubblewrap would beyond that; Landlock and seccomp are applied on top.

Runs in the freshly forked child, which still holds capabilities; standard library only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Mapping
from typing import Any

from agentcli.sandbox import linux

_READ_ONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_RECURSIVE, _SLAVE = 1 << 14, 1 << 19
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def enter(wanted: Mapping[str, Any]) -> None:
    """Leave the host's namespaces; raises OSError when the kernel refuses.

    Returns in a grandchild: the caller stays outside and ends as the command ends, and the first
    process of the new process ids only reaps.

    ``wanted``: ``network`` (bool), ``tmpfs`` (path → bytes), ``keep`` (folders that stay visible
    although a tmpfs covers where they are), ``pinned`` (cannot be renamed), ``read_only`` and
    ``hidden`` (paths).
    """
    flags = linux.CLONE_NEWIPC | linux.CLONE_NEWNS | linux.CLONE_NEWPID
    if wanted["network"]:
        flags |= linux.CLONE_NEWNET
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(flags)
    except PermissionError:
        # An ordinary user needs a user namespace first, and a readable /proc/self to map it.
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        linux.unshare(flags | linux.CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if wanted["network"]:
        _bring_up_loopback()
    _continue_in_child()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != 0:  # the parent is outside, where ids are others
        os._exit(0)
    _mount(wanted)
    _continue_in_child()
    os.setsid()


def _continue_in_child() -> None:
    """Fork; the parent waits for the child, whatever else it reaps, and ends as the child did."""
    child = os.fork()
    if child == 0:
        return
    os.closerange(0, 1 << 20)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _UP_AND_RUNNING)
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)


def _mount(wanted: Mapping[str, Any]) -> None:
    linux.mount(None, "/", None, _RECURSIVE | _SLAVE)
    linux.mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    covered = tuple(f"{path}/" for path in wanted["tmpfs"])
    kept = {
        path: os.open(path, os.O_PATH | os.O_CLOEXEC)
        for path in sorted(wanted["keep"])
        if path.startswith(covered) and os.path.isdir(path)
    }
    for path, size in wanted["tmpfs"].items():
        linux.mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, f"size={size},mode=1777")
    for path, descriptor in kept.items():
        os.makedirs(path, exist_ok=True)
        linux.mount(f"/proc/self/fd/{descriptor}", path, None, _BIND | _RECURSIVE)
        os.close(descriptor)
    for path in wanted["pinned"]:
        if os.path.exists(path) and not os.path.islink(path):
            linux.mount(path, path, None, _BIND)
    for path in wanted["read_only"]:
        if not os.path.exists(path) or os.path.islink(path):
            continue
        linux.mount(path, path, None, _BIND)
        # Flags that the mount already has are locked; all must be named again.
        present = os.statvfs(path).f_flag & 0xF
        linux.mount(None, path, None, _BIND | _REMOUNT | _READ_ONLY | present)
    for path in wanted["hidden"]:
        if os.path.isdir(path):
            linux.mount("tmpfs", path, "tmpfs", _READ_ONLY | _NOSUID | _NODEV, "size=4k,mode=555")
        elif os.path.exists(path):
            linux.mount("/dev/null", path, None, _BIND)
