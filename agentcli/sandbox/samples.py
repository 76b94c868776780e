"""Samples what a command's process tree uses, and compares it with the limits.

The warden takes a sample every few milliseconds (``warden.py``). With a control group the kernel
itself limits memory and tasks, exactly; the samples are for everything else, and for machines
without control groups.

Standard library only.
"""

from __future__ import annotations

import os
import time

from agentcli.sandbox import tree
from agentcli.sandbox.bare import suppress

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from agentcli.sandbox import cgroup

_MANY = 128  # processes; a larger tree gets the lowest priority, or its warden would get no time


def too_many(limits: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a tree with more tasks than its limit."""
    return {"exceeded": f"more than {limits['tasks']} tasks"}


class Samples:
    """Compares what a command's tree uses with its limits, one sample at a time."""

    def __init__(self, launch: dict[str, Any], main: int, group: cgroup.Group | None) -> None:
        self.pause_s = 0.02
        """How long to wait before the next sample."""
        self._limits = limits = launch["limits"]
        self._main = main
        self._disk = _Disk(launch.get("disk_path"), limits["disk_bytes"])
        self._shared = _Shared(limits["memory_bytes"]) if group is None else None
        self._seen = 0
        self._most = min(_MANY, limits["tasks"])
        self._tasks_before = tree.all_tasks()

    def exceeded(self) -> dict[str, Any]:
        """Take a sample; a verdict on the limit that it exceeds, empty if none."""
        limits, most = self._limits, self._limits["tasks"]
        # The quickest test comes first: the more processes run, the less time is left here.
        grown = tree.all_tasks() - self._tasks_before > most
        if grown and tree.processes_inside(self._main) > most:
            return too_many(limits)
        pids = tree.descendants(os.getpid(), self._most)
        if len(pids) > _MANY:
            tree.give_way(self._main, pids)
            if self._most < most:
                self._most = most
                return {}
        if len(pids) > most:
            return too_many(limits)
        usage = tree.Usage(pids)
        if self._shared is not None and self._shared.exceeded(usage.memory, pids):
            return {"memory_exceeded": True}
        if usage.memory > limits["memory_bytes"]:
            return {"memory_exceeded": True}
        if usage.tasks > most:
            return too_many(limits)
        if self._disk.exceeded(usage, pids):
            return {"disk_exceeded": True}
        # Look at a fast-growing tree again soon: a fork bomb doubles within milliseconds.
        fast = len(pids) > max(2 * self._seen, 32)
        self.pause_s = 0.01 if fast else 0.05 if len(pids) < 200 else 0.1
        self._seen = len(pids)
        return {}


class _Shared:
    """Limits files in memory, mapped or not, as a control group would.

    It first looks at the growth of the whole machine, which costs next to nothing. System V
    segments cannot be measured from outside, nor can what a process hides. The machine's growth
    therefore has a limit of its own, with room for the sandbox's own /tmp and the like.
    """

    ROOM = 3 << 30

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.before = tree.shared_bytes()

    def exceeded(self, resident: int, pids: list[int]) -> bool:
        grown = tree.shared_bytes() - self.before
        if grown <= self.limit // 2:
            return False
        return grown > self.limit + self.ROOM or resident + tree.memfd_bytes(pids) > self.limit


class _Disk:
    """Limits growth of the disk: the loss of free space, if this tree caused it."""

    def __init__(self, path: str | None, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.free = self._free()
        self.started = time.time() - 1  # file system clocks are coarse

    def _free(self) -> int:
        if not self.path:
            return 0
        try:
            info = os.statvfs(self.path)
        except OSError:
            return 0
        return info.f_bfree * info.f_frsize

    def exceeded(self, usage: tree.Usage, pids: list[int]) -> bool:
        if self.free - self._free() <= self.limit:
            return False
        # Space can also be taken without writing (fallocate), and a process can hide its writes.
        return usage.hidden or max(usage.written, self._grown(pids)) > self.limit

    def _grown(self, pids: list[int]) -> int:
        """Bytes on disk of workspace files changed since the start, and of unnamed open files."""
        size = tree.unnamed_bytes(pids)
        pending = [self.path] if self.path else []
        while pending and size <= self.limit:
            with suppress(OSError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                            continue
                        info = entry.stat(follow_symlinks=False)
                        if info.st_ctime >= self.started:
                            size += info.st_blocks * 512
        return size
