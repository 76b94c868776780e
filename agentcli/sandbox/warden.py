"""One warden per command: a forked copy of the supervisor that watches one process tree.

It is the subreaper of the command, so that it inherits whatever the command leaves behind, and no
other command's warden does. It enforces the time limit, watches memory, tasks and disk, and ends
when nothing of the tree is left. It dies with the supervisor, and the command dies with it.

Covers: time-outs; memory, tasks and disk growth of the whole tree. All are sampled; the kernel
    itself limits memory and tasks if ``cgroup.py`` is able to. It limits an ordinary user's tasks
    in any case: exactly in a user namespace, which counts anew, else at the machine's present
    tasks plus twice the limit. Also daemons that left the group or the session, and the
    supervisor's own death.
Does not cover: what happens between two samples (20 ms at first, then 50 ms) unless cgroups or
    the per-process limits stop it. For root, the kernel limits tasks only by cgroups.

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
from agentcli.sandbox.samples import Samples, too_many

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any, NoReturn

_WATCHED = frozenset({signal.SIGCHLD, signal.SIGTERM})


class Warden:
    """A warden that waits for its command, and the process that will become the command.

    Both are forked ahead of time, since most of a command's start is forking an interpreter and
    touching its memory again. The supervisor reads ``report``: one packed object, sent when no
    process of the command is left.
    """

    def __init__(self) -> None:
        order, self._order = os.pipe()
        self._launch, launch = socketpair()
        self.report, report = os.pipe()
        parent = os.getpid()
        # SIGTERM may come at once, and must not be lost before the warden waits for it.
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
        """Start the clock and enforce all limits from now on."""
        order = {"limits": limits, "disk_path": disk_path}
        _write_all(self._order, marshal.dumps(order))
        os.close(self._order)

    def close(self) -> None:
        """End the warden, and whatever it was given, instead of calling ``watch``."""
        self._launch.close()
        os.close(self._order)


def _run(order: int, launch: socket, report: int, parent: int) -> NoReturn:
    """Be the warden, from its fork to its end."""
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
    with suppress(OSError):  # only root can; against fork bombs that take all CPU time
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    text = os.read(order, 65536)  # small enough to come in one piece
    if not text:  # closed without being used
        tree.kill_descendants(me)
        if group is not None:
            group.remove()
        return
    started = time.monotonic()
    verdict = _watch(marshal.loads(text), main, started, group)
    if "status" not in verdict:  # else it is reaped, and its pid may be reused
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
    samples = Samples(launch, main, group)
    while True:
        wait = samples.pause_s
        if deadline is not None:
            wait = max(min(wait, deadline - time.monotonic()), 0)
        caught = signal.sigtimedwait(_WATCHED, wait)
        if caught is not None and caught.si_signo == signal.SIGTERM:
            return {"killed": True}
        if caught is not None:
            status = _reap_until(main)
            if status is not None:
                refused = _refused(group, limits) if group is not None and status != 0 else {}
                return {**refused, "status": status}
            continue
        if deadline is not None and time.monotonic() >= deadline:
            return {"timed_out": True}
        if group is not None and (refused := _refused(group, limits)):
            return refused
        if exceeded := samples.exceeded():
            return exceeded


def _refused(group: cgroup.Group, limits: dict[str, Any]) -> dict[str, Any]:
    """A verdict on what the kernel has refused to the tree; empty if nothing."""
    if group.out_of_memory():
        return {"memory_exceeded": True}
    return too_many(limits) if group.out_of_tasks() else {}


def _reap_until(main: int) -> int | None:
    """Reap every child that has ended; the wait status of ``main`` if it is one of them."""
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
    """Wait for the launch, then become the command; never returns."""
    step = "start"
    try:
        os.setsid()
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        if group is not None and not _is_for_worker(link):
            with suppress(OSError):  # then the samples enforce the limits
                group.enter()
        # exec resets handlers, but ignored signals stay ignored.
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
    """Whether the launch has already arrived and is that of agentcli's own file worker.

    The kernel takes 10 ms to move a process into a group; the file worker need not wait for that.
    """
    try:
        data = link.recv(65536, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return protocol.is_whole(data) and bool(protocol.unpack(data)["worker"])


def _receive(link: socket) -> tuple[dict[str, Any], dict[int, int]]:
    """The launch and its descriptors; ends the process if none will come."""
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
    """Give the command exactly its descriptors; returns the new number of the failure pipe."""
    top = max([*fds, 63]) + 1
    # First move all away from the targets, so that no dup2 overwrites a source still needed.
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
    """Close every descriptor except these."""
    start = 0
    for number in [*sorted(keep), 1 << 20]:
        if number > start:  # in CPython 3.11 an empty range closes everything
            os.closerange(start, number)
        start = number + 1


def _set_limits(limits: dict[str, Any]) -> None:
    """Set per-process limits, hard limits included, so that they cannot be raised again."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    if limits["hard_memory"]:  # not RLIMIT_AS, which also counts shared and read-only mappings
        _limit(resource.RLIMIT_DATA, limits["memory_bytes"])
    # The kernel counts all of the user's tasks, and others may start elsewhere in the meantime.
    _limit(resource.RLIMIT_NPROC, tree.all_tasks() + 2 * limits["tasks"])


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _say(report: int, value: dict[str, Any]) -> None:
    # The packed length lets the supervisor go on without waiting for this process to end.
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
    """Handle SIGCHLD by doing nothing, so that it is not ignored."""
