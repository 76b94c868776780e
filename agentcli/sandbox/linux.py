"""The few Linux calls that Python does not wrap, through ctypes: no dependency, no compiler.

The supervisor and the processes it forks use this module. It therefore imports only the standard
library, and importing it has no side effects.
"""

from __future__ import annotations

import ctypes
import os

from agentcli.sandbox.bare import suppress

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_LIBC: ctypes.CDLL | None = None


def libc() -> ctypes.CDLL:
    """The C library of this process, loaded once."""
    global _LIBC
    if _LIBC is None:
        _LIBC = ctypes.CDLL(None, use_errno=True)
    return _LIBC


def check(result: int, what: str) -> int:
    """Raise OSError from errno if a C call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    """prctl(2) with numbers only; raises OSError."""
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    check(libc().prctl(ctypes.c_int(option), *arguments), f"prctl {option}")


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    check(libc().unshare(ctypes.c_int(flags)), "unshare")


def map_user(uid: int, gid: int) -> None:
    """Map this user's ids to themselves in the user namespace just entered; raises OSError."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2); raises OSError."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    result = libc().mount(*words, ctypes.c_ulong(flags), os.fsencode(data))
    check(result, f"mount {target}")


def make_read_only(path: str) -> None:
    """Make a mount and all mounts below it read-only (Linux 5.12); raises OSError.

    Device nodes and set-user-id bits there have no effect any more either.
    """
    attributes = (ctypes.c_uint64 * 4)(1 | 2 | 4, 0, 0, 0)  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV
    recursive = 0x8000
    result = libc().syscall(
        442, -100, os.fsencode(path), recursive, attributes, ctypes.c_size_t(32)
    )
    check(result, f"mount_setattr {path}")


def enter_root(path: str) -> None:
    """Make ``path``, a mount, the root of this mount namespace and detach the old root."""
    numbers = {"x86_64": 155, "aarch64": 41}
    os.chdir(path)
    check(libc().syscall(numbers[os.uname().machine], b".", b"."), "pivot_root")
    check(libc().umount2(b".", 2), "umount2")  # MNT_DETACH
    os.chdir("/")


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def drop_capabilities() -> None:
    """Drop every capability for good, including those that exec as root would regain.

    Raises OSError only if a capability that is held cannot be dropped.
    """
    for number in range(64):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:
            break  # past the last capability, or not permitted, which means that none is held
    with suppress(OSError):  # kernels before 4.3 have no ambient set
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapHeader(0x20080522, 0)
    empty = (_CapData * 2)()
    check(libc().capset(ctypes.byref(header), ctypes.byref(empty)), "capset")
