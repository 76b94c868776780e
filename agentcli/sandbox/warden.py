"""One warden per command: a forked copy of the supervisor that watches over one tree.

It is the subreaper of the command, so whatever the command leaves behind falls to it and to no
other command's warden. It holds the clock, watches memory, tasks and disk, and ends when nothing
of the tree is left. It dies with the supervisor, and the command dies with it.

Covers: time-outs; memory, tasks and disk growth of the whole tree (sampled; memory and tasks by the
    kernel itself where ``cgroup.py`` can have it so, tasks of an ordinary user in any case: exactly
    in a user namespace, which counts anew, else as that user's present tasks and the limit twice);
    daemons that left the group or the session; the supervisor's own death.
Does not cover: what happens between two samples (20 ms at first, then 50 ms) unless cgroups or
    the per-process limits stop it. The kernel limits no tasks of root's but by cgroups.

Standard library only.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import resource
import time
from _socket import MSG_DONTWAIT, MSG_PEEK, socket, socketpair

from agentcli.sandbox import cgroup, landlock, linux, namespaces, protocol, seccomp, tree
from agentcli.sandbox.bare import recv_fds, send_fds, signal, suppress

TYPE_CHECKING = False  # as type checkers know it; typing itself takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any, NoReturn

_WATCHED = frozenset({signal.SIGCHLD, signal.SIGTERM})
_MANY = 128  # processes, from which on a tree gives way, or its warden would get no time


class Warden:
    """A warden that waits for its command, with the process that will become the command.

    Both are forked ahead of time, since forking an interpreter and touching its memory again is
    the larger part of a command's start. ``report`` is read by the supervisor: one packed object,
    when no process of the command is left.
    """

    def __init__(self) -> None:
        order, self._order = os.pipe()
        self._launch, launch = socketpair()
        self.report, report = os.pipe()
        parent = os.getpid()
        # An order to end may come at once; until the warden waits for it, it must not be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        self.pid = os.fork()
        if self.pid == 0:
            _run(order, launch, report, parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(order)
        launch.close()
        os.close(report)

    def give(self, launch: dict[str, Any], fds: dict[int, int]) -> None:
        """Start the process; ``fds`` maps its descriptor numbers to open descriptors of ours."""
        data = memoryview(protocol.pack({**launch, "fds": list(fds)}))
        try:
            sent = send_fds(self._launch, data, list(fds.values()))
            if sent < len(data):
                self._launch.sendall(data[sent:])
        finally:
            self._launch.close()

    def watch(self, limits: dict[str, Any], disk_path: str | None) -> None:
        """From now on time counts, and every other limit."""
        order = {"limits": limits, "disk_path": disk_path}
        _write_all(self._order, marshal.dumps(order))
        os.close(self._order)

    def close(self) -> None:
        """Instead of ``watch``: it ends, and whatever it was given with it."""
        self._launch.close()
        os.close(self._order)


def _run(order: int, launch: socket, report: int, parent: int) -> NoReturn:
    """The warden, from its fork to its end."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGCHLD else _nothing)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        failure, child_failure = os.pipe()
        _keep_only({order, launch.fileno(), report, failure, child_failure})
        if os.getppid() == parent:
            _serve(order, launch, report, failure, child_failure)
    except BaseException as error:
        _say(report, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _serve(order: int, launch: socket, report: int, failure: int, child_failure: int) -> None:
    me = os.getpid()
    group = cgroup.create()
    main = os.fork()
    if main == 0:
        os.close(report)
        _become(launch, child_failure, me, group)
    os.close(child_failure)
    launch.close()
    with suppress(OSError):  # only root can; a fork bomb takes the processor from others
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    text = os.read(order, 65536)  # small enough to come in one piece
    if not text:  # never needed
        tree.kill_descendants(me)
        if group is not None:
            group.remove()
        return
    started = time.monotonic()
    verdict = _watch(marshal.loads(text), main, started, group)
    if "status" not in verdict:  # else it is reaped, and its number may be another's
        tree.kill_namespace(main)
    tree.kill_descendants(me)
    fault = _read_all(failure)
    if fault:
        code, _, what = fault.partition(b" ")
        verdict["error"] = what.decode("utf-8", "replace")
        verdict["errno"] = int(code)
    verdict["duration_s"] = time.monotonic() - started
    _say(report, verdict)
    if group is not None:
        group.remove()


def _watch(
    launch: dict[str, Any], main: int, started: float, group: cgroup.Group | None
) -> dict[str, Any]:
    """Wait for the command's end, or for a reason to end it."""
    limits = launch["limits"]
    if group is not None and not group.limit(limits["memory_bytes"], limits["tasks"]):
        group = None
    deadline = started + limits["time_s"] if limits.get("time_s") else None
    me = os.getpid()
    disk = _Disk(launch.get("disk_path"), limits["disk_bytes"])
    shared = _Shared(limits["memory_bytes"]) if group is None else None
    pause = 0.02
    seen = 0
    most = min(_MANY, limits["tasks"])
    tasks_before = _all_tasks()
    too_many = {"exceeded": f"more than {limits['tasks']} tasks"}
    verdict: dict[str, Any] = {}
    while True:
        wait = pause if deadline is None else max(min(pause, deadline - time.monotonic()), 0)
        caught = signal.sigtimedwait(_WATCHED, wait)
        if caught is not None and caught.si_signo == signal.SIGTERM:
            return {**verdict, "killed": True}
        if caught is not None:
            status = _reap_until(main)
            if status is not None:
                if status != 0 and group is not None:
                    verdict = _refused(group, limits) or verdict
                return {**verdict, "status": status}
            continue
        if deadline is not None and time.monotonic() >= deadline:
            return {**verdict, "timed_out": True}
        if group is not None and (refused := _refused(group, limits)):
            return {**verdict, **refused}
        # What is quick comes first: the more processes want time, the less of it is left here.
        grown = _all_tasks() - tasks_before > limits["tasks"]
        if grown and tree.processes_inside(main) > limits["tasks"]:
            return {**verdict, **too_many}
        pids = tree.descendants(me, most)
        if len(pids) > _MANY:
            tree.give_way(main, pids)
            if most < limits["tasks"]:
                most = limits["tasks"]
                continue
        if len(pids) > limits["tasks"]:
            return {**verdict, **too_many}
        usage = tree.Usage(pids)
        if shared is not None and shared.exceeded(usage.memory, pids):
            return {**verdict, "memory_exceeded": True}
        if usage.memory > limits["memory_bytes"]:
            return {**verdict, "memory_exceeded": True}
        if usage.tasks > limits["tasks"]:
            return {**verdict, **too_many}
        if disk.exceeded(usage, pids):
            return {**verdict, "disk_exceeded": True}
        # A tree that grows fast is looked at again soon: a fork bomb doubles within milliseconds.
        pause = 0.01 if len(pids) > max(2 * seen, 32) else 0.05 if len(pids) < 200 else 0.1
        seen = len(pids)


def _refused(group: cgroup.Group, limits: dict[str, Any]) -> dict[str, Any]:
    """What the kernel has refused the tree, as a verdict; empty if nothing."""
    if group.out_of_memory():
        return {"memory_exceeded": True}
    if group.out_of_tasks():
        return {"exceeded": f"more than {limits['tasks']} tasks"}
    return {}


class _Shared:
    """Files in memory, which no process need have mapped: what a control group would count.

    The whole machine's growth is looked at first, as it costs next to nothing. What System V
    segments hold cannot be told from outside, nor what a process hides: then the machine's growth
    itself has a limit, which leaves room for the sandbox's own /tmp and the like.
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
    """Growth of the disk: what went missing from free space, if it was this tree that took it."""

    def __init__(self, path: str | None, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.free = self._free()
        self.started = time.time() - 1  # file systems' clocks are coarse

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
        # Space can also be had without writing (fallocate), and a process can hide what it writes.
        return usage.hidden or max(usage.written, self._grown(pids)) > self.limit

    def _grown(self, pids: list[int]) -> int:
        """Bytes of disk in files of the workspace that have changed since, or have no name."""
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


def _reap_until(main: int) -> int | None:
    """Reap all that has ended; the wait status of ``main`` if it is among them."""
    status = None
    while True:
        try:
            pid, value = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == main:
            status = value


def _become(link: socket, failure: int, parent: int, group: cgroup.Group | None) -> NoReturn:
    """Wait for the launch, then turn into the command; never returns."""
    step = "start"
    try:
        os.setsid()
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        if group is not None and not _is_for_worker(link):
            with suppress(OSError):  # the samples hold the limits then
                group.enter()
        # An exec resets handlers by itself, but what is ignored stays so.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        launch, fds = _receive(link)
        failure = _place(fds, failure)
        step = "limits"
        _set_limits(launch["limits"])
        if launch.get("namespaces"):
            step = "namespaces"
            if namespaces.enter(launch["namespaces"]):
                _limit(resource.RLIMIT_NPROC, launch["limits"]["tasks"] + tree.SPARE_TASKS)
        step = launch["cwd"] or "folder"
        if launch["cwd"]:
            os.chdir(launch["cwd"])
        step = "confinement"
        if launch.get("confine") or launch.get("landlock"):
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        if launch.get("landlock"):
            landlock.restrict(launch["landlock"])
        if launch.get("confine"):
            linux.drop_capabilities()
        if launch.get("seccomp"):
            seccomp.install(launch["seccomp"])
        step = launch["argv"][0]
        os.execvpe(launch["argv"][0], launch["argv"], launch["env"])
    except BaseException as error:
        code = error.errno if isinstance(error, OSError) and error.errno else 0
        text = os.strerror(code) if code else f"{type(error).__name__}: {error}"
        _write_all(failure, f"{code} {step}: {text}".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(127)


def _is_for_worker(link: socket) -> bool:
    """Whether a launch has come already, and is agentcli's own: only the first of a start.

    The kernel takes 10 ms to let a process into a group, for which the file worker need not wait.
    """
    try:
        data = link.recv(65536, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return protocol.is_whole(data) and bool(protocol.unpack(data)["worker"])


def _receive(link: socket) -> tuple[dict[str, Any], dict[int, int]]:
    """The launch and its descriptors; ends the process when there will be none."""
    data, passed = recv_fds(link, 65536, 64)
    if not data:
        os._exit(0)
    received = bytearray(data)
    while not protocol.is_whole(received):
        more = link.recv(1 << 20)
        if not more:
            os._exit(0)
        received += more
    launch = protocol.unpack(received)
    return launch, dict(zip(launch["fds"], passed, strict=True))


def _place(fds: dict[int, int], failure: int) -> int:
    """Give the command exactly its descriptors; returns the failure pipe's new number."""
    top = max([*fds, 63]) + 1
    # First away from all targets, so that no placement overwrites a source still needed.
    moved = {}
    for target, source in fds.items():
        moved[target] = _dup_above(source, top)
    failure = _dup_above(failure, top)
    for target, source in moved.items():
        os.dup2(source, target, inheritable=True)
    _keep_only({*fds, failure})
    os.set_inheritable(failure, False)
    return failure


def _dup_above(descriptor: int, lowest: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def _keep_only(keep: set[int]) -> None:
    """Close every descriptor that is not named."""
    start = 0
    for number in [*sorted(keep), 1 << 20]:
        if number > start:  # an empty range would close everything (CPython 3.11)
            os.closerange(start, number)
        start = number + 1


def _set_limits(limits: dict[str, Any]) -> None:
    """Per-process limits; the hard limit too, so that they cannot be raised again."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    if limits["hard_memory"]:  # not RLIMIT_AS, which counts what is shared and read-only as well
        _limit(resource.RLIMIT_DATA, limits["memory_bytes"])
    # All of the user's tasks are counted, and more of them may start elsewhere meanwhile.
    _limit(resource.RLIMIT_NPROC, _all_tasks() + 2 * limits["tasks"])


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _all_tasks() -> int:
    """All tasks of the machine, hence not fewer than this user's."""
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[3].partition(b"/")[2])


def _say(report: int, value: dict[str, Any]) -> None:
    # Its length lets the supervisor go on without waiting for the end of this process.
    _write_all(report, protocol.pack(value))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError:
            return


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while True:
        part = os.read(descriptor, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _nothing(number: int, frame: object) -> None:
    """A handler, so that SIGCHLD is not ignored."""
