"""A supervisor that sees one overlay mount: a folder as it is, where writing changes nothing of it.

The kernel puts what is written into ``upper``, a folder beside, and marks there what is gone.
Mounting takes a mount namespace, which an ordinary user gets with a user namespace; both are this
supervisor's own, so that nobody else sees the mount and that it ends with the process (kill -9
too).

Covers: ``lower`` is never written through the mount; what is in ``upper`` cannot be forged by what
    runs on the mount (the kernel refuses whiteouts and its own attributes there).
Does not cover: changes of ``lower`` meanwhile, which the mount may or may not show. Renaming a
    folder that ``lower`` has fails with EXDEV, as between two disks, and programs copy it instead.

Standard library only; run as ``python -I -S``, see ``layered.py``.
"""

from __future__ import annotations

import os
from _socket import socket

from agentcli.sandbox import linux, protocol, supervisor
from agentcli.sandbox.bare import send_fds, suppress

_NOSUID, _NODEV, _RECURSIVE, _SLAVE = 2, 4, 1 << 14, 1 << 19


def main(descriptor: int, parent: int, lower: str, upper: str, work: str, place: str) -> None:
    """Mount, send a descriptor of the mount beside MOUNTED (or FAULT), then be a supervisor.

    ``upper`` and ``work`` are empty folders on one file system, outside ``lower``; the mount is at
    ``place``, an empty folder.
    """
    try:
        _enter()
        linux.mount("overlay", place, "overlay", _NOSUID | _NODEV, _options(lower, upper, work))
        mounted = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        link = socket(fileno=descriptor)
        with suppress(OSError):
            link.sendall(protocol.encode(protocol.FAULT, 0, os.strerror(error.errno or 0).encode()))
        raise SystemExit(1) from error
    link = socket(fileno=os.dup(descriptor))
    send_fds(link, memoryview(protocol.encode(protocol.MOUNTED, 0, b"")), [mounted])
    link.close()
    os.close(mounted)
    supervisor.main(descriptor, parent)


def _enter() -> None:
    """A mount namespace of one's own, in a user namespace where it takes one."""
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(linux.CLONE_NEWNS)
    except PermissionError:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.map_user(uid, gid)
    linux.mount(None, "/", None, _RECURSIVE | _SLAVE)


def _options(lower: str, upper: str, work: str) -> str:
    # Attributes of root's own kind ("trusted") are not to be had in a user namespace.
    folders = {"lowerdir": lower, "upperdir": upper, "workdir": work}
    return ",".join([*(f"{name}={_quoted(path)}" for name, path in folders.items()), "userxattr"])


def _quoted(path: str) -> str:
    """As overlayfs reads names: a comma ends an option, a colon a folder."""
    return "".join(f"\\{sign}" if sign in "\\,:" else sign for sign in path)
