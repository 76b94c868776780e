"""Layer C in the kernel: a control group for each command, if this user may create one.

Covers: the memory of the whole process tree, including files that exist only in memory (memfd,
    /tmp, /dev/shm), and its number of tasks. Both limits are exact, as the kernel itself refuses
    or kills what exceeds them.
Does not cover: time, disk and output (see the warden); machines where the groups belong to someone
    else. There only the warden's samples enforce the limits.

Version 1 has a hierarchy for each resource; in both, the new group is a child of this process's
own. In version 2, a group that holds processes cannot have children with limits, so the new group
is a sibling, if the parent delegates memory and pids. Existing groups are never changed.

Standard library only.
"""

from __future__ import annotations

import os

from agentcli.sandbox.bare import suppress

_PREFIX = "agentcli-"


class Place:  # not a named tuple: importing collections takes a tenth of the supervisor's start
    """The folders in which groups can be created; in version 2 both are the same."""

    def __init__(self, memory: str, tasks: str, version: int) -> None:
        self.memory = memory
        self.tasks = tasks
        self.version = version


def find(own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> Place | None:
    """Where this process may create groups, or None."""
    try:
        with open(own) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        with open(mounts) as file:
            mounted = list(_mounts(file.read()))
    except (OSError, ValueError):
        return None
    found: dict[str, str] = {}
    for _, controllers, path in lines:
        for name in ("memory", "pids"):
            if name in controllers.split(","):
                found[name] = _folder(mounted, path, name)
    if _usable(found.get("memory", "")) and _usable(found.get("pids", "")):
        return Place(found["memory"], found["pids"], 1)
    for _, controllers, path in lines:
        if not controllers:
            above = os.path.dirname(_folder(mounted, path, "") or "/")
            if _usable(above) and {"memory", "pids"} <= _given_on(above):
                return Place(above, above, 2)
    return None


def _mounts(text: str) -> list[tuple[str, str, str]]:
    """(root within the hierarchy, mount point, options) of every mounted hierarchy."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, point = before.split(" ")[3:5]
            found.append((root, point, options if kind == "cgroup" else ""))
    return found


def _folder(mounted: list[tuple[str, str, str]], path: str, controller: str) -> str:
    for root, point, options in mounted:
        right = controller in options.split(",") if controller else not options
        below = os.path.relpath(path, root)
        if right and not below.startswith(".."):
            return os.path.normpath(os.path.join(point, below))
    return ""


def _usable(folder: str) -> bool:
    return bool(folder) and os.access(folder, os.W_OK) and os.access(f"{folder}/cgroup.procs", 2)


def _given_on(folder: str) -> set[str]:
    return set(_read(f"{folder}/cgroup.subtree_control").split())


class Group:
    """The group of one command. It starts empty; the command's first process calls ``enter``."""

    def __init__(self, place: Place, name: str) -> None:
        """Create the group; raises OSError."""
        self.version = place.version
        self.memory = os.path.join(place.memory, name)
        self.tasks = os.path.join(place.tasks, name)
        self._folders = dict.fromkeys((self.memory, self.tasks))
        for folder in self._folders:
            os.mkdir(folder)

    def enter(self) -> None:
        """Move this process into the group, and with it all that it starts; raises OSError."""
        for folder in self._folders:
            _write(f"{folder}/cgroup.procs", "0")

    def limit(self, memory_bytes: int, tasks: int) -> bool:
        """Enforce the limits from now on; False if the kernel does not accept them."""
        size = str(memory_bytes)
        name, swap = (
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            if self.version == 1
            else ("memory.max", "memory.swap.max")
        )
        try:
            _write(f"{self.memory}/{name}", size)
            _write(f"{self.tasks}/pids.max", str(tasks))
        except OSError:
            return False
        with suppress(OSError):  # kernels without swap accounting have no such file
            _write(f"{self.memory}/{swap}", size if self.version == 1 else "0")
        return True

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the group for lack of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return _counter(f"{self.memory}/{name}", "oom_kill") > 0

    def out_of_tasks(self) -> bool:
        """Whether the kernel has refused the group another task."""
        return _counter(f"{self.tasks}/pids.events", "max") > 0

    def remove(self) -> None:
        """Remove the group, once no process is left in it."""
        for folder in self._folders:
            with suppress(OSError):
                os.rmdir(folder)


_found: list[Place | None] = []


def look() -> None:
    """Find where groups can be created, for this process and those that it will fork."""
    if _found:
        return
    place = find()
    _found.append(place)
    for folder in {place.memory, place.tasks} if place else ():
        # Groups that a killed warden left behind. The kernel removes none that is in use.
        for name in _names(folder):
            if name.startswith(_PREFIX) and not os.path.exists(f"/proc/{name[len(_PREFIX) :]}"):
                with suppress(OSError):
                    os.rmdir(f"{folder}/{name}")


def create() -> Group | None:
    """A group for a command of this process, or None if none can be created."""
    look()
    if _found[0] is None:
        return None
    try:
        return Group(_found[0], f"{_PREFIX}{os.getpid()}")
    except OSError:
        return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _counter(path: str, name: str) -> int:
    for line in _read(path).splitlines():
        word, _, value = line.partition(" ")
        if word == name:
            return int(value)
    return 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
