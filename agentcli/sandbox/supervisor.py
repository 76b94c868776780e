"""The supervisor: a single-threaded process that starts first and is the only one that forks.

agentcli talks to it in frames over a socket pair; see ``protocol.py``. For each command it creates
pipes, forks a warden (``warden.py``), forwards output as it arrives, and reports the end. The start
of a long output is forwarded at once. Of the rest only the end is kept, with an occasional sample
for display, so that a flood of output costs agentcli nothing. Between commands it prepares the next
sandbox (``ahead.py``).

It ends, together with its wardens, when the socket closes, when agentcli ends in any way (even by
kill -9), or on SIGTERM.

Covers: no fork in a process with threads; no inherited descriptor or secret (its own environment
    is an allowlist); nothing waits for a pipe once the main process is gone; orphans of a killed
    warden are killed here.
Does not cover: confinement, which is up to the launch (bwrap, Landlock, seccomp).

Standard library only; run as ``python -I -S`` by ``process.py``.
"""

from __future__ import annotations

import gc
import marshal
import os
import select
from _socket import socket

from agentcli.sandbox import cgroup, linux, protocol
from agentcli.sandbox.bare import recv_fds, signal, suppress
from agentcli.sandbox.streams import Stream
from agentcli.sandbox.warden import Warden

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any

CHUNK = 65536
BACKLOG = 4 * 1024 * 1024
AHEAD = 2  # waiting sandboxes: two commands may follow each other faster than one can be made
IDLE_MS = 5  # of quiet after a command's start, before the next one is prepared


class _Command:
    """A running command: its warden, its streams, and what the warden has reported so far."""

    def __init__(self, number: int, warden: int, report: int, streams: list[Stream]) -> None:
        self.number = number
        self.warden = warden
        self.report = report
        self.streams = streams
        self.said = b""


class _Waiting:
    """A started shell that waits for its one line, with its warden and its streams."""

    def __init__(self, warden: Warden, line: int, streams: list[Stream]) -> None:
        self.warden = warden
        self.streams = streams
        self._line = line

    def send(self, line: bytes) -> bool:
        """Send the line, which fits into the pipe; False if the shell is gone."""
        try:
            os.write(self._line, line)
        except BrokenPipeError:
            return False
        finally:
            os.close(self._line)
        return True

    def close(self) -> None:
        """End a shell to which no line was sent."""
        os.close(self._line)
        self.discard()

    def discard(self) -> None:
        self.warden.close()
        for descriptor in (self.warden.report, *(stream.descriptor for stream in self.streams)):
            os.close(descriptor)


class _Supervisor:
    def __init__(self, link: socket, parent: int) -> None:
        self.link = link
        self.decoder = protocol.Decoder()
        self.passed: list[int] = []
        self.outbox = bytearray()
        self.commands: dict[int, _Command] = {}
        self.wardens: set[int] = set()
        self.spare: Warden | None = None
        self.template: dict[str, Any] | None = None
        self.template_fds: list[int] = []
        self.waiting: list[_Waiting] = []
        self.starting = False  # the command that started last has not ended
        self.poll = select.poll()
        self.handlers: dict[int, Any] = {}
        self.running = True
        self.throttled = False
        self.parent = parent

    def run(self) -> None:
        self.link.setblocking(False)
        self._watch(self.link.fileno(), select.POLLIN, self._on_link)
        wake, wake_writer = os.pipe()
        for descriptor in (wake, wake_writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._watch(wake, select.POLLIN, lambda: self._on_child(wake))
        # A pidfd reports the end of the whole process; PDEATHSIG that of the thread that forked.
        with suppress(OSError, AttributeError):
            self._watch(os.pidfd_open(self.parent), select.POLLIN, self._stop)
        self._send(protocol.READY, 0, b"")
        while self.running:
            pause = None if self._is_prepared() else IDLE_MS if self.starting else 0
            ready = self.poll.poll(pause)
            if not ready:
                self._prepare()
            for descriptor, event in ready:
                handler = self.handlers.get(descriptor)
                if descriptor == self.link.fileno() and event & select.POLLOUT:
                    self._flush()
                    event &= ~select.POLLOUT
                if handler is not None and event:
                    handler()
        self._end_all()

    def _watch(self, descriptor: int, events: int, handler: Any) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, events)

    def _forget(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)
        os.close(descriptor)

    def _stop(self) -> None:
        self.running = False

    def _on_term(self, number: int, frame: object) -> None:
        self.running = False

    def _on_link(self) -> None:
        try:
            data, fds = recv_fds(self.link, CHUNK, 64)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self.passed.extend(fds)
        if not data:
            self.running = False
            return
        for kind, number, payload in self.decoder.feed(data):
            match kind:
                case protocol.SPAWN:
                    self._spawn(number, marshal.loads(payload))
                case protocol.TEMPLATE:
                    self._take_template(marshal.loads(payload))
                case protocol.LINE:
                    self._run_line(number, marshal.loads(payload))
                case protocol.KILL:
                    self._kill(number)

    def _spawn(self, number: int, launch: dict[str, Any]) -> None:
        passed = self._take_passed(launch)
        warden, streams = self._start(launch, dict(zip(launch["fds"], passed, strict=True)))
        for descriptor in passed:
            os.close(descriptor)
        self._follow(number, warden, streams, launch)

    def _take_passed(self, launch: dict[str, Any]) -> list[int]:
        count = len(launch["fds"])
        passed, self.passed = self.passed[:count], self.passed[count:]
        return passed

    def _take_template(self, launch: dict[str, Any]) -> None:
        self._forget_template()
        self.template, self.template_fds = launch, self._take_passed(launch)

    def _forget_template(self) -> None:
        for waiting in self.waiting:
            waiting.close()
        for descriptor in self.template_fds:
            os.close(descriptor)
        self.template, self.template_fds, self.waiting = None, [], []

    def _run_line(self, number: int, order: dict[str, Any]) -> None:
        assert self.template is not None
        line = order["line"]
        waiting = self.waiting.pop(0) if self.waiting else self._new_waiting(self.template)
        while not waiting.send(line):
            waiting.discard()
            waiting = self._new_waiting(self.template)
        launch = {**self.template, "limits": order["limits"]}
        self._follow(number, waiting.warden, waiting.streams, launch)

    def _new_waiting(self, template: dict[str, Any]) -> _Waiting:
        reader, writer = os.pipe()
        # Opened again, since each reader needs its own position in the file.
        files = [os.open(f"/proc/self/fd/{one}", os.O_RDONLY) for one in self.template_fds]
        fds = dict(zip(template["fds"], files, strict=True))
        warden, streams = self._start(template, {**fds, 0: reader})
        for descriptor in (reader, *files):
            os.close(descriptor)
        return _Waiting(warden, writer, streams)

    def _is_prepared(self) -> bool:
        return self.spare is not None and (self.template is None or len(self.waiting) == AHEAD)

    def _prepare(self) -> None:
        """Prepare one thing at a time, as commands may be running."""
        if self.template is not None and len(self.waiting) < AHEAD:
            self.waiting.append(self._new_waiting(self.template))
        else:
            cgroup.look()  # once, for all wardens forked from now on
            self.spare = self._new_warden()

    def _start(self, launch: dict[str, Any], fds: dict[int, int]) -> tuple[Warden, list[Stream]]:
        """Start a process without watching it yet; ``fds`` are the descriptors given to it."""
        streams = []
        opened = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)]
        given = dict(fds)
        for target in (0, 1, 2):
            if target in given:
                continue
            if target == 0 or not launch["capture"]:
                given[target] = opened[0]
                continue
            reader, writer = os.pipe()
            opened.append(writer)
            os.set_blocking(reader, False)
            given[target] = writer
            kind = protocol.STDOUT if target == 1 else protocol.STDERR
            streams.append(Stream(reader, kind, launch["limits"]["output_bytes"]))
        warden, self.spare = self.spare or self._new_warden(), None
        warden.give(launch, given)
        for descriptor in opened:
            os.close(descriptor)
        return warden, streams

    def _follow(
        self, number: int, warden: Warden, streams: list[Stream], launch: dict[str, Any]
    ) -> None:
        """Make it a command: from now on its output is forwarded and its limits hold."""
        warden.watch(launch["limits"], launch.get("disk_path"))
        command = _Command(number, warden.pid, warden.report, streams)
        self.commands[number] = command
        self.starting = True
        self._watch(warden.report, select.POLLIN, lambda: self._on_report(command))
        for stream in streams:
            self._watch(
                stream.descriptor, select.POLLIN, lambda stream=stream: self._read(command, stream)
            )

    def _new_warden(self) -> Warden:
        warden = Warden()
        self.wardens.add(warden.pid)
        return warden

    def _kill(self, number: int) -> None:
        command = self.commands.get(number)
        if command is not None:
            with suppress(ProcessLookupError):
                os.kill(command.warden, signal.SIGTERM)

    def _read(self, command: _Command, stream: Stream) -> bool:
        """Read once; False if there is nothing to read, for now or for good."""
        try:
            data = os.read(stream.descriptor, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._forget(stream.descriptor)
            stream.descriptor = -1
            return False
        head, sample = stream.take(data)
        if head:
            self._send(stream.kind, command.number, head)
        if sample:
            self._send(stream.kind | protocol.SAMPLE, command.number, sample)
        return True

    def _on_report(self, command: _Command) -> None:
        data = os.read(command.report, CHUNK)
        command.said += data
        if data and not protocol.is_whole(command.said):
            return
        # No process of the command is left: the warden has said so, or is gone itself.
        self._forget(command.report)
        counts = []
        for stream in command.streams:
            while stream.descriptor >= 0 and self._read(command, stream):
                pass
            if stream.descriptor >= 0:
                self._forget(stream.descriptor)
            end = stream.end()
            if stream.dropped:
                counts.append([stream.kind, stream.dropped])
                dropped = str(stream.dropped).encode()
                self._send(stream.kind | protocol.GAP, command.number, dropped)
            for start in range(0, len(end), CHUNK):
                piece = end[start : start + CHUNK]
                self._send(stream.kind | protocol.TAIL, command.number, piece)
        verdict = protocol.unpack(command.said) or {"error": "its warden was killed"}
        verdict["dropped"] = counts
        del self.commands[command.number]
        self.starting = False
        self._send(protocol.EXIT, command.number, marshal.dumps(verdict))

    def _on_child(self, wake: int) -> None:
        with suppress(BlockingIOError):
            os.read(wake, 4096)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            self.wardens.discard(pid)
        self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill our children that are not wardens: they have lost theirs."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                mine = [int(word) for word in file.read().split()]
        except OSError:
            return
        for pid in mine:
            if pid not in self.wardens:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        self.outbox += protocol.encode(kind, number, payload)
        self._flush()

    def _flush(self) -> None:
        try:
            while self.outbox:
                sent = self.link.send(memoryview(self.outbox)[:BACKLOG])
                del self.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.running = False
            self.outbox.clear()
        waiting = select.POLLOUT if self.outbox else 0
        self.poll.modify(self.link.fileno(), select.POLLIN | waiting)
        self._throttle(len(self.outbox) > BACKLOG)

    def _throttle(self, on: bool) -> None:
        """Stop reading output while agentcli does not, so that commands wait on full pipes."""
        if on == self.throttled:
            return
        self.throttled = on
        for command in self.commands.values():
            for stream in command.streams:
                if stream.descriptor >= 0:
                    self.poll.modify(stream.descriptor, 0 if on else select.POLLIN)

    def _end_all(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._forget_template()
        if self.spare is not None:
            self.spare.close()
        for pid in self.wardens:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while True:
            try:
                pid, _ = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            self.wardens.discard(pid)
            self._kill_orphans()


def main(descriptor: int, parent: int) -> None:
    """Serve the socket inherited as ``descriptor`` until it closes."""
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    os.chdir("/")
    # A collection in a forked child would copy every page that it touches.
    gc.disable()
    gc.freeze()
    link = socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    try:
        _Supervisor(link, parent).run()
    except Exception as error:
        with suppress(OSError):
            link.setblocking(True)
            text = f"{type(error).__name__}: {error}".encode()
            link.sendall(protocol.encode(protocol.FAULT, 0, text))
        os._exit(1)
    os._exit(0)  # agentcli waits for this, and tearing down the interpreter takes 3 ms
