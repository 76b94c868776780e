"""Layer B: a system-call filter (seccomp BPF) for x86_64 and aarch64; see seccomp(2).

Covers: calls of a foreign architecture (killed); new namespaces, mounts, chroot; bpf, perf,
    io_uring, userfaultfd, keyrings; reading other processes' memory; attaching to them, except in
    a private pid namespace, where debuggers and leak checkers need it (but never to its first
    process, which belongs to the sandbox); open_by_handle_at; kernel modules, kexec, reboot, swap,
    clocks; set-user-id and set-group-id bits by chmod or at creation; device nodes; pushing input
    into a terminal; socket families that the network policy does not permit.
Does not cover: which file or address a permitted call names, since the filter cannot follow
    pointers. It is therefore always combined with namespaces or Landlock.

clone3 and openat2 keep their flags behind a pointer: they fail with ENOSYS, and the C library falls
back to the older calls. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from agentcli.sandbox import linux

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Iterable

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); -1 if the architecture has no such call.
_NUMBERS: dict[str, tuple[int, int]] = {
    "_sysctl": (156, -1),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chmod": (90, -1),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "creat": (85, -1),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "nfsservctl": (180, 42),
    "open": (2, -1),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, -1),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

_ABSENT = ("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register")

_NEW_NAMESPACES = 0x7E020080  # user, pid, net, ipc, uts, cgroup, mount, time
_NEW_NAMESPACES_CLONE = 0x7E020000  # without time, whose bit in clone is part of a signal number
_SET_ID = 0o6000
_ATTACHING = (16, 0x4206)  # PTRACE_ATTACH, PTRACE_SEIZE
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x541D, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16


def supported() -> bool:
    """Whether the filter knows this machine's architecture and the kernel has seccomp."""
    return os.uname().machine in _ARCHITECTURES and os.path.exists("/proc/sys/kernel/seccomp")


class _Program:
    """BPF instructions in order. Each rule is a block that falls through if it does not apply."""

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []

    def add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self.code.append((code, if_true, if_false, value))

    def block(self, number: int, body: list[tuple[int, int, int, int]]) -> None:
        """Add ``body`` for one system call; it must end in a return."""
        self.add(_JUMP_EQUAL, number, 0, len(body))
        self.code += body

    def encoded(self) -> bytes:
        return b"".join(struct.pack("HBBI", *instruction) for instruction in self.code)


def _argument(index: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, 16 + 8 * index)  # the low half: both architectures are little-endian


def _returning(value: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, value)


def _refuse_if_any(index: int, bits: int) -> list[tuple[int, int, int, int]]:
    """EPERM if the argument has any of the bits."""
    refuse = _returning(ERRNO | errno.EPERM)
    return [_argument(index), (_JUMP_ANY, 0, 1, bits), refuse, _returning(ALLOW)]


def _refuse_if_one_of(index: int, values: Iterable[int]) -> list[tuple[int, int, int, int]]:
    body = [_argument(index)]
    for value in values:
        body += [(_JUMP_EQUAL, 0, 1, value), _returning(ERRNO | errno.EPERM)]
    return [*body, _returning(ALLOW)]


def _tracing() -> list[tuple[int, int, int, int]]:
    """ptrace: EPERM for attaching to the first process, which is the sandbox's own."""
    return [
        _argument(1),
        (_JUMP_EQUAL, 1, 0, 1),
        _returning(ALLOW),
        *_refuse_if_one_of(0, _ATTACHING),
    ]


def _creation(flags: int, mode: int) -> list[tuple[int, int, int, int]]:
    """open: the mode matters only if the call may create a file (O_CREAT or O_TMPFILE)."""
    return [
        _argument(flags),
        (_JUMP_ANY, 0, 3, 0o100 | 0o20000000),
        _argument(mode),
        (_JUMP_ANY, 0, 1, _SET_ID),
        _returning(ERRNO | errno.EPERM),
        _returning(ALLOW),
    ]


def _node(mode: int) -> list[tuple[int, int, int, int]]:
    """mknod: no set-id bits, no character or block device."""
    refuse = _returning(ERRNO | errno.EPERM)
    return [
        _argument(mode),
        (_JUMP_ANY, 0, 1, _SET_ID),
        refuse,
        (_AND, 0, 0, 0o170000),
        (_JUMP_EQUAL, 0, 1, 0o020000),
        refuse,
        (_JUMP_EQUAL, 0, 1, 0o060000),
        refuse,
        _returning(ALLOW),
    ]


def _sockets(families: Iterable[int]) -> list[tuple[int, int, int, int]]:
    body = [_argument(0)]
    for family in families:
        if family == AF_NETLINK:
            # Only NETLINK_ROUTE, for getifaddrs(3); no audit, udev events or packet filters.
            body += [
                (_JUMP_EQUAL, 0, 4, family),
                _argument(2),
                (_JUMP_EQUAL, 0, 1, 0),
                _returning(ALLOW),
                _returning(ERRNO | errno.EPERM),
            ]
        else:
            body += [(_JUMP_EQUAL, 0, 1, family), _returning(ALLOW)]
    return [*body, _returning(ERRNO | errno.EPERM)]


def build(families: Iterable[int], machine: str | None = None, *, attach: bool = False) -> bytes:
    """The filter as ``struct sock_filter[]``; ``families`` are the permitted socket families.

    ``attach`` permits attaching by ptrace to every process except the first. It is for a command
    in a private pid namespace, whose first process belongs to the sandbox.
    """
    machine = machine or os.uname().machine
    column = list(_ARCHITECTURES).index(machine)
    program = _Program()
    program.add(_LOAD, 4)
    program.add(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0)
    program.add(_RETURN, KILL)
    program.add(_LOAD, 0)
    if machine == "x86_64":
        program.add(_JUMP_AT_LEAST, 0x40000000, 0, 1)  # the x32 calls
        program.add(_RETURN, KILL)
    bodies = {
        "clone": _refuse_if_any(0, _NEW_NAMESPACES_CLONE),
        "unshare": _refuse_if_any(0, _NEW_NAMESPACES),
        "ptrace": _tracing() if attach else _refuse_if_one_of(0, _ATTACHING),
        "ioctl": _refuse_if_one_of(1, _TERMINAL_REQUESTS),
        "socket": _sockets(families),
        "mknod": _node(1),
        "mknodat": _node(2),
        "open": _creation(1, 2),
        "openat": _creation(2, 3),
        "creat": _refuse_if_any(1, _SET_ID),
        "chmod": _refuse_if_any(1, _SET_ID),
        "fchmod": _refuse_if_any(1, _SET_ID),
        "fchmodat": _refuse_if_any(2, _SET_ID),
        "fchmodat2": _refuse_if_any(2, _SET_ID),
    }
    for name, numbers in _NUMBERS.items():
        number = numbers[column]
        if number < 0:
            continue
        if name in bodies:
            program.block(number, bodies[name])
        else:
            answer = errno.ENOSYS if name in _ABSENT else errno.EPERM
            program.block(number, [_returning(ERRNO | answer)])
    program.add(_RETURN, ALLOW)
    return program.encoded()


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install(program: bytes) -> None:
    """Apply the filter to this process and whatever it executes; requires ``no_new_privs``."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    linux.prctl(linux.PR_SET_SECCOMP, 2, ctypes.addressof(header))
