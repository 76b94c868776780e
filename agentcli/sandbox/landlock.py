"""Landlock: an allowlist of files, for the level reduced, without bubblewrap (landlock(7)).

Covers: reading, writing, executing, creating and removing files outside the allowlist, for the
    command and all it starts; tracing processes outside; on newer kernels also TCP (ABI 4), device
    ioctls (5), signals to and abstract sockets of processes outside (6).
Does not cover: names and metadata (stat works everywhere); chmod and utime of the user's files
    anywhere (a read-only file system would refuse them); sockets in the file system and UDP
    (seccomp refuses their families instead); paths inside an allowed folder: ``.git`` cannot be
    read-only within a writable workspace, so layer E compares it afterwards.

Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import stat

from agentcli.sandbox import linux
from agentcli.sandbox.bare import suppress

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CREATE, _ADD, _RESTRICT = 444, 445, 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_MAKE_DEVICES = 1 << 6 | 1 << 11


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The kernel's Landlock version (ABI); 0 if it has none or if it is switched off."""
    return max(int(linux.libc().syscall(_CREATE, None, 0, 1)), 0)


ABSTRACT_SOCKETS = 6
"""The first version in which ``restrict`` denies abstract sockets of processes outside."""


def restrict(rules: Mapping[str, Any]) -> None:
    """Put this process under the rules for good; requires ``no_new_privs``.

    ``rules``: ``read``, ``list`` (names only), ``write`` and ``devices`` are lists of paths; those
    that do not exist are skipped. ``tcp`` permits TCP. ``scope`` denies abstract sockets of
    processes outside and nothing else: it is for private mounts on the host's own network. Raises
    OSError if the kernel refuses.
    """
    level = version()
    if rules.get("scope"):
        _apply(_Ruleset(0, 0, 1), 24, {})
        return
    everything = (1 << 13) - 1
    if level >= 2:
        everything |= _REFER
    if level >= 3:
        everything |= _TRUNCATE
    if level >= 5:
        everything |= _IOCTL_DEV
    net = 3 if level >= 4 and not rules.get("tcp") else 0
    scoped = 3 if level >= ABSTRACT_SOCKETS else 0
    grants = {
        "read": _READ,
        "list": _READ_DIR,
        "write": everything & ~_MAKE_DEVICES & ~_IOCTL_DEV,
        "devices": _READ_FILE | _WRITE_FILE | _READ_DIR | _TRUNCATE | _IOCTL_DEV,
    }
    allowed: dict[str, int] = {}
    for name, access in grants.items():
        for path in rules.get(name, ()):
            allowed[path] = allowed.get(path, 0) | access & everything
    size = 8 if level < 4 else 16 if level < 6 else 24
    _apply(_Ruleset(everything, net, scoped), size, allowed)


def _apply(attributes: _Ruleset, size: int, allowed: Mapping[str, int]) -> None:
    libc = linux.libc()
    ruleset = linux.check(
        libc.syscall(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), 0), "landlock"
    )
    for path, access in allowed.items():
        _allow(ruleset, path, access)
    linux.check(libc.syscall(_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _ON_FILES
        rule = _PathRule(access, descriptor)
        with suppress(OSError):
            linux.check(linux.libc().syscall(_ADD, ruleset, 1, ctypes.byref(rule), 0), path)
    finally:
        os.close(descriptor)
