"""A supervisor with an overlay mount: its commands see a folder, and cannot change it by writing.

The kernel puts everything written into a separate folder, ``upper``, and marks removals there. A
mount takes a mount namespace, which an ordinary user gets together with a user namespace. Both are
private to this supervisor, so nobody else sees the mount, and it ends with the process (even by
kill -9).

Covers: ``lower`` is never written through the mount; programs on the mount cannot forge what is in
    ``upper`` (the kernel refuses whiteouts and its own attributes there).
Does not cover: changes of ``lower`` in the meantime, which the mount may or may not show. Renaming
    a folder of ``lower`` fails with EXDEV, as between two disks, and programs copy it instead.

Standard library only; run as ``python -I -S``, see ``layered.py``.
"""

from __future__ import annotations

import os
from _socket import socket

from agentcli.sandbox import linux, protocol, supervisor
from agentcli.sandbox.bare import send_fds, suppress

_NOSUID, _NODEV, _RECURSIVE, _SLAVE = 2, 4, 1 << 14, 1 << 19


def main(descriptor: int, parent: int, lower: str, upper: str, work: str, place: str) -> None:
    """Mount, send MOUNTED with a descriptor of the mount (or FAULT), then become a supervisor.

    ``upper`` and ``work`` are empty folders on one file system, outside ``lower``. The mount point
    is ``place``, an empty folder.
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
    """Enter a private mount namespace, in a user namespace if it takes one."""
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(linux.CLONE_NEWNS)
    except PermissionError:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.map_user(uid, gid)
    linux.mount(None, "/", None, _RECURSIVE | _SLAVE)


def _options(lower: str, upper: str, work: str) -> str:
    # The "trusted" attributes, overlayfs's default, are not available in a user namespace.
    folders = {"lowerdir": lower, "upperdir": upper, "workdir": work}
    return ",".join([*(f"{name}={_quoted(path)}" for name, path in folders.items()), "userxattr"])


def _quoted(path: str) -> str:
    """Escape a path for overlayfs: a comma would end the option, a colon the folder."""
    return "".join(f"\\{sign}" if sign in "\\,:" else sign for sign in path)
