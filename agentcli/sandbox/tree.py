"""Finds the descendants of a process, measures what they use, and kills them all.

Standard library only: this runs in the supervisor and its wardens.
"""

from __future__ import annotations

import os
import stat

from agentcli.sandbox.bare import signal, suppress

_PAGE = os.sysconf("SC_PAGE_SIZE")

SPARE_TASKS = 64
"""How far above a tree's limit the kernel's own limit lies, so that a sample can see the excess."""


def is_running(pid: int) -> bool:
    """Whether there is a process with this id, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def descendants(root: int, most: int | None = None) -> list[int]:
    """All processes below ``root``, zombies included; ``root`` itself is not.

    With ``most``, the search may stop once it has found more than that.
    """
    try:
        return _walk_children(root, most)
    except FileNotFoundError:
        return _scan(root)  # a kernel without CONFIG_PROC_CHILDREN


def _walk_children(root: int, most: int | None) -> list[int]:
    """Follow the kernel's own lists of children, without looking at unrelated processes."""
    found: list[int] = []
    pending = [root]
    while pending and (most is None or len(found) <= most):
        pid = pending.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue  # it has ended in the meantime
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    below = [int(word) for word in file.read().split()]
            except FileNotFoundError:
                if pid == root and thread == str(root):
                    raise
                continue
            except OSError:
                continue
            found += below
            pending += below
    return found


def _scan(root: int) -> list[int]:
    """The same, from the parent of every process in /proc."""
    table: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name is in parentheses and may itself contain spaces and ")".
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended in the meantime
        table.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    pending = list(table.get(root, ()))
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending.extend(table.get(pid, ()))
    return found


def first_inside(main: int) -> int | None:
    """The first process of the pid namespace that a child holds; None if it holds none."""
    for pid in descendants(main, 0):
        with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
            ids = file.read().partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
            if len(ids) > 1 and ids[-1] == b"1":
                return pid
    return None


def processes_inside(main: int) -> int:
    """How many processes are in the pid namespace that a child holds; 0 if it holds none.

    Takes one listing of that namespace's /proc, fifty times faster than a walk over as many.
    """
    first = first_inside(main)
    for pid in descendants(first, 0) if first else ():
        with suppress(OSError):  # it has ended, or cannot be looked at
            return sum(map(str.isdigit, os.listdir(os.path.join(f"/proc/{pid}/root", "proc"))))
    return 0


class Usage:
    """What a set of processes uses in total.

    ``memory`` is resident bytes (without shared file pages), ``tasks`` counts threads, ``written``
    is the bytes sent to the disk by these processes and by children they have waited for.
    ``hidden`` means that some process does not let ``written`` be read.
    """

    def __init__(self, pids: list[int]) -> None:
        self.memory = 0
        self.tasks = 0
        self.written = 0
        self.hidden = False
        for pid in pids:
            try:
                with open(f"/proc/{pid}/statm", "rb") as file:
                    fields = file.read().split()
                with open(f"/proc/{pid}/status", "rb") as file:
                    status = file.read()
            except OSError:
                continue
            self.tasks += _field(status, b"Threads:")
            # Anonymous and shared-memory pages cost memory; pages of mapped files can be dropped.
            kib = sum(_field(status, name) for name in (b"RssAnon:", b"RssShmem:", b"VmSwap:"))
            self.memory += kib * 1024 if kib else (int(fields[1]) - int(fields[2])) * _PAGE
            try:
                with open(f"/proc/{pid}/io", "rb") as file:
                    io = file.read()
            except PermissionError:
                self.hidden = True
                continue
            except OSError:
                continue
            self.written += _field(io, b"\nwrite_bytes:") - _field(io, b"cancelled_write_bytes:")


def all_tasks() -> int:
    """The number of all tasks on the machine, which is an upper bound for this user's."""
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[3].partition(b"/")[2])


def shared_bytes() -> int:
    """Bytes of the machine's memory that are taken by files in memory."""
    with open("/proc/meminfo", "rb") as file:
        return _field(file.read(), b"\nShmem:") * 1024


def memfd_bytes(pids: list[int]) -> int:
    """Bytes of the processes' open files that exist only in memory."""
    return _unnamed_bytes(pids, in_memory=True)


def unnamed_bytes(pids: list[int]) -> int:
    """Bytes on disk of the processes' open files that have no name, or none any more."""
    return _unnamed_bytes(pids, in_memory=False)


def _unnamed_bytes(pids: list[int], *, in_memory: bool) -> int:
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    path = f"/proc/{pid}/fd/{name}"
                    info = os.stat(path)
                    if not stat.S_ISREG(info.st_mode) or info.st_nlink:
                        continue
                    if os.readlink(path).startswith("/memfd:") is in_memory:
                        found[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(found.values())


def _field(text: bytes, name: bytes) -> int:
    start = text.find(name)
    if start < 0:
        return 0
    return int(text[start + len(name) : start + len(name) + 32].split()[0])


def kill_descendants(root: int) -> None:
    """Kill everything below this process (``root`` is its own id) and reap it all.

    The direct children and their process groups go first; the kernel kills a group at once. Of the
    rest, all are stopped before any is killed, so that a fork bomb cannot outrun the sweep. As the
    caller is a subreaper, "no child left to wait for" means that no descendant exists.
    """
    _send(descendants(root, 0), signal.SIGKILL)
    while not reap_all():
        for number in (signal.SIGSTOP, signal.SIGKILL):
            _send(descendants(root), number)
        # SIGCHLD is blocked in the caller, so that this sleeps until the next one has ended.
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)


def _send(pids: list[int], number: int) -> None:
    """Send a signal to processes and to the groups that they lead."""
    for pid in pids:
        for send in (os.killpg, os.kill):
            with suppress(ProcessLookupError, PermissionError):
                send(pid, number)


def give_way(main: int, pids: list[int]) -> None:
    """Give processes, and the groups that they lead, the lowest priority.

    What they start inherits it. The two processes that hold a namespace are excepted: killing them
    ends everything in it, and must not wait.
    """
    first = first_inside(main)
    for pid in pids:
        if first is None or pid not in (main, first):
            for kind in (os.PRIO_PGRP, os.PRIO_PROCESS):
                with suppress(ProcessLookupError, PermissionError):
                    os.setpriority(kind, pid, 19)


def kill_namespace(main: int, patience_s: float = 5.0) -> None:
    """Kill a child that holds a pid namespace, and with it everything in that namespace.

    When the namespace's first process dies, the kernel kills the rest at once, however fast they
    fork; a walk over them could not keep up.
    """
    first = first_inside(main)
    if first is None:
        return
    for pid in (first, main):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    while not reap_all() and patience_s > 0:
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
        patience_s -= 0.01


def reap_all() -> bool:
    """Reap every child that has ended; True if no child is left at all."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
