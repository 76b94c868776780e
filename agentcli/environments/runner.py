"""Runs one command at the far end of a connection, and kills it when the connection closes.

One file, standard library only, Python 3.8 or newer: it is sent over stdin, like the file worker.

Covers: time; killing the whole process tree, including daemons (on Linux, by being a subreaper;
    elsewhere only the process group); output that is too long; open files, file size.
Does not cover: anything else. The command has the rights of the far end's user.

stdin has the length of a JSON request (big-endian u32), the request, and the command's stdin. When
stdin closes, the command is killed. stdout has frames of kind (u8), length (u32) and payload. The
kinds are STDOUT, STDERR, GAP (the kind of the stream as one byte, and how many of its bytes were
left out, in decimal) and EXIT (JSON).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names that Python 3.8 does not have when the program runs
    from collections.abc import Iterator
    from typing import Any

STDOUT, STDERR, GAP, EXIT = 1, 2, 3, 4
HEAD = struct.Struct("!BI")
SUBREAPER = 36  # prctl's number


class Stream:
    """One output stream: its start is sent at once; of the rest, the end is kept."""

    def __init__(self, kind: int, descriptor: int, keep: int) -> None:
        self.kind, self.descriptor = kind, descriptor
        self.head_left, self.tail_size = keep - keep // 2, keep // 2
        self.tail = bytearray()
        self.dropped = 0
        os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """Read what has arrived; False at the end."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return True
        if not data:
            return False
        head, rest = data[: self.head_left], data[self.head_left :]
        self.head_left -= len(head)
        if head:
            send(self.kind, head)
        self.tail += rest
        self.cut(2 * self.tail_size)
        return True

    def cut(self, longest: int) -> None:
        excess = len(self.tail) - longest
        if excess > 0:
            excess = len(self.tail) - self.tail_size
            del self.tail[:excess]
            self.dropped += excess

    def finish(self) -> None:
        """Send the end that was kept."""
        self.cut(self.tail_size)
        if self.dropped:
            send(GAP, bytes([self.kind]) + str(self.dropped).encode())
        if self.tail:
            send(self.kind, bytes(self.tail))


def send(kind: int, payload: bytes) -> None:
    data = memoryview(HEAD.pack(kind, len(payload)) + payload)
    while data:
        data = data[os.write(1, data) :]


def receive(size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data


def children() -> Iterator[int]:
    """The children of this process, which as a subreaper also inherits orphans."""
    me = os.getpid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended in the meantime
        if int(fields[1]) == me:
            yield int(name)


def end_all(group: int) -> None:
    """Kill until no process is left."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(1000):
        if sys.platform == "linux":
            for pid in list(children()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def started(request: dict[str, Any], given: bytes) -> subprocess.Popen[bytes]:
    """Start the command under its limits; raises OSError."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, request["file_bytes"]),
        (resource.RLIMIT_NOFILE, request["open_files"]),
    ):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(what, (most, most))
    with tempfile.TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        return subprocess.Popen(
            request["argv"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=request["cwd"],
            env={**os.environ, **request["env"]},
            start_new_session=True,
        )


def why_not_started(error: OSError, request: dict[str, Any]) -> str:
    """One line about a command that could not be started, or its folder."""
    folder = error.filename == request["cwd"]
    what = os.strerror(error.errno or 0).lower()
    if error.errno == errno.ENOENT:
        what = "no such folder" if folder else "no such program"
    name = request["cwd"] if folder else request["argv"][0]
    return f"{name}: {what}"


def watch(process: subprocess.Popen[bytes], streams: list[Stream], time_s: float) -> str:
    """Wait for the end: returns "" if it ended by itself, "time", or "gone" for the connection."""
    end = time.monotonic() + time_s
    open_streams = list(streams)
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return "time"
        waiting = [0] + [stream.descriptor for stream in open_streams]
        # Poll, since the end of the command does not wake up select in every Python.
        ready = select.select(waiting, [], [], min(left, 0.02))[0]
        if 0 in ready and not os.read(0, 4096):
            return "gone"
        for stream in list(open_streams):
            if stream.descriptor in ready and not stream.read():
                open_streams.remove(stream)
        # What it has left behind may go on printing; ``main`` reads what is still in the pipes.
        if process.poll() is not None:
            return ""


def main() -> None:
    """Serve one request."""
    request = json.loads(receive(struct.unpack("!I", receive(4))[0]).decode())
    given = receive(request["stdin"])
    begun = time.monotonic()
    try:
        process = started(request, given)
    except OSError as error:
        send(EXIT, json.dumps({"error": why_not_started(error, request)}).encode())
        return
    assert process.stdout is not None and process.stderr is not None
    streams = [
        Stream(STDOUT, process.stdout.fileno(), request["output_bytes"]),
        Stream(STDERR, process.stderr.fileno(), request["output_bytes"]),
    ]
    # A closed connection ends the command.
    signal.signal(signal.SIGHUP, lambda number, frame: end_all(process.pid))
    how = "gone"
    try:
        how = watch(process, streams, request["time_s"])
    except BrokenPipeError:
        pass
    finally:
        status = process.returncode
        end_all(process.pid)
    with contextlib.suppress(BrokenPipeError):
        for stream in streams:
            for _ in range(64):  # what is still in the pipe
                if not stream.read():
                    break
            stream.finish()
        verdict = {
            "status": None if how else status,
            "timed_out": how == "time",
            "truncated": any(stream.dropped for stream in streams),
            "duration_s": time.monotonic() - begun,
        }
        send(EXIT, json.dumps(verdict).encode())


if __name__ == "__main__":
    main()
