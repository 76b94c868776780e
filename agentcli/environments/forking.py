"""Runs ``python -m MODULE`` repeatedly in forks of one interpreter that has already imported it.

One file, standard library only, Python 3.8 or newer: it runs in the workspace's interpreter, inside
a sandbox that applies to all of its children. Every run is a fresh process: the project's own
modules are imported anew, and what a run leaves behind is killed before the answer is sent.

Covers: the length of each run's output, and its time. A run may use ``time_s`` of CPU time, and
    ``SLACK`` times as much wall-clock time, so that a busy machine does not fail it. Outside of
    Linux only the wall clock counts. The sandbox covers the rest.
Does not cover: a run that kills this process or forges its answers. Callers must not rely on an
    answer alone.

Requests and answers on the control socket are a length (big-endian u32) and JSON. Requests have
``argv`` of the module, ``time_s``, ``output_bytes`` of each stream, and ``lines``, whether to trace
which lines run. The first answer is ``{}``, when ready. Each later one has ``code`` (None: out of
time), ``duration_s``, ``stdout``, ``stderr``, ``cut``, and on request ``lines`` (see
``Lines.found``).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names that Python 3.8 does not have when the program runs
    from collections.abc import Callable
    from typing import Any

    Performed = tuple[dict[str, object], list[str]]

SUBREAPER = 36  # prctl's number
SLACK = 4.0
LIBRARIES = os.sep + "site-packages" + os.sep
HEAD = struct.Struct("!I")


class Stream:
    """One output stream; keeps its start and its end."""

    def __init__(self, keep: int) -> None:
        self.reader, self.writer = os.pipe()
        self.keep = keep
        self.head, self.tail = b"", b""
        self.cut = False

    def read(self) -> bool:
        """Read what has arrived; False at the end."""
        data = os.read(self.reader, 1 << 16)
        room = self.keep // 2 - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > self.keep // 2:
            self.tail, self.cut = self.tail[-(self.keep // 2) :], True
        return bool(data)

    def text(self) -> str:
        """What was kept."""
        gap = b"\n[... some output left out ...]\n" if self.cut else b""
        return (self.head + gap + self.tail).decode("utf-8", "replace")


class Lines:
    """Traces which lines of the working folder's files run in how many failed and passed tests.

    Supports pytest, as a plugin, and unittest.
    """

    def __init__(self) -> None:
        self.root = os.getcwd() + os.sep
        self.is_own = own_files(os.getcwd())
        self.running = set()  # type: set[tuple[str, int]]
        self.failed = False
        self.tests = [0, 0]  # failed, passed
        self.counts = {}  # type: dict[tuple[str, int], list[int]]

    def install(self) -> None:
        import unittest

        plain = unittest.TestCase.run

        def run_case(case, result=None):  # type: ignore[no-untyped-def]
            if self.running or result is None:
                return plain(case, result)
            before = len(result.failures) + len(result.errors)
            with self.test():
                returned = plain(case, result)
                self.failed = len(result.failures) + len(result.errors) > before
            return returned

        if "pytest" in sys.modules:
            self.install_plugin(sys.modules["pytest"])
        else:
            unittest.TestCase.run = run_case  # type: ignore[method-assign]

    def install_plugin(self, pytest) -> None:  # type: ignore[no-untyped-def]
        plugin = types.ModuleType("agentcli_lines")

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(item, nextitem):  # type: ignore[no-untyped-def]
            with self.test():
                yield

        def pytest_runtest_logreport(report):  # type: ignore[no-untyped-def]
            self.failed = self.failed or report.failed

        plugin.__dict__["pytest_runtest_protocol"] = pytest_runtest_protocol
        plugin.__dict__["pytest_runtest_logreport"] = pytest_runtest_logreport
        sys.modules[plugin.__name__] = plugin
        sys.argv += ["-p", plugin.__name__]

    @contextlib.contextmanager
    def test(self):  # type: ignore[no-untyped-def]
        self.failed = False
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(None)
            place = 0 if self.failed else 1
            self.tests[place] += 1
            for line in self.running:
                self.counts.setdefault(line, [0, 0])[place] += 1
            self.running.clear()

    def trace(self, frame, event, argument):  # type: ignore[no-untyped-def]
        if not self.is_own(frame.f_code.co_filename):
            return None
        self.running.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    def found(self) -> dict:  # type: ignore[type-arg]
        """``tests``: how many failed and passed; ``ran``: the same for the tests of each line."""
        ran = {}  # type: dict[str, dict[str, list[int]]]
        for (path, line), counts in self.counts.items():
            ran.setdefault(path[len(self.root) :], {})[str(line)] = counts
        return {"tests": self.tests, "ran": ran}


def warm(module: str) -> None:
    """Import what every run will need."""
    names = [module]
    if module == "pytest":
        from _pytest.config import default_plugins

        names += ["_pytest." + name for name in default_plugins]
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def run(module: str, arguments: list[str], report: int) -> None:
    """Run the module like ``python -m``; ends by SystemExit, or as the module ends.

    ``report`` is the descriptor to write the traced lines to, or -1.
    """
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    sys.argv = [module, *arguments]
    if report < 0:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    lines = Lines()
    lines.install()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        with os.fdopen(report, "w") as file:
            json.dump({**lines.found(), "modules": foreign_modules()}, file)


def foreign_modules() -> list[str]:
    """The imported modules, in order, except for those of the working folder."""
    is_own = own_files(os.getcwd())
    files = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
    return [name for name, file in files if file and not is_own(file)]


def own_files(folder: str) -> Callable[[str], bool]:
    """Tells the files of ``folder`` itself from those of an environment or library in it."""
    root = folder + os.sep
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    inside = tuple(prefix + os.sep for prefix in prefixes if prefix.startswith(root))
    known = {}  # type: dict[str, bool]

    def is_own(file: str) -> bool:
        if file not in known:
            known[file] = (
                file.startswith(root)
                and not file.startswith(inside)
                and LIBRARIES not in file[len(folder) :]
            )
        return known[file]

    return is_own


def import_ahead(names: list[str]) -> None:
    """Import what a run has imported, for later runs. Exits if an import has started a thread.

    pytest would warn that it is too late to rewrite these modules, so they opt out of it.
    """
    before = set(sys.modules)
    for name in names:
        if name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    for name in set(sys.modules) - before:
        with contextlib.suppress(AttributeError, TypeError):
            module = sys.modules[name]
            module.__doc__ = (module.__doc__ or "") + "\nPYTEST_DONT_REWRITE"
    gc.freeze()  # collections in a fork then do not copy these objects' pages
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) > 1:
        sys.exit(0)  # a fork could inherit locks of threads that it does not have


def leave(module: str, arguments: list[str], report: int) -> None:
    """Run in this fork and end it, without tearing down all modules, which may take a second."""
    code = 0
    try:
        run(module, arguments, report)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)


def end_all(group: int) -> None:
    """Kill all processes that a run has left."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(1000):
        if sys.platform == "linux":
            for pid in children():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def children() -> list[int]:
    """The children of this process, which as a subreaper also inherits orphans."""
    with open("/proc/self/task/%d/children" % os.getpid()) as file:  # noqa: UP031
        return [int(pid) for pid in file.read().split()]


def used_s(pid: int, begun: float) -> float:
    """CPU seconds of a run, with the children it has waited for; without /proc, wall-clock time."""
    try:
        with open("/proc/%d/stat" % pid) as file:  # noqa: UP031
            ticks = file.read().rpartition(")")[2].split()[11:15]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return time.monotonic() - begun


def watch(
    pid: int, streams: list[Stream], begun: float, time_s: float, control: socket.socket
) -> int | None:
    """Wait for the run and return its exit code; None if out of time. Exits if agentcli is gone."""
    open_streams = list(streams)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        left = time_s - (time.monotonic() - begun)
        if left <= 0 and not done:
            left = min(left + (SLACK - 1) * time_s, time_s - used_s(pid, begun))
        waiting = [control.fileno()] + [stream.reader for stream in open_streams]
        # Once the run has ended, only what is still in the pipes counts.
        pause = 0.0 if done else max(min(left, 0.02 if not open_streams else 0.2), 0.0)
        ready = select.select(waiting, [], [], pause)[0]
        if control.fileno() in ready:
            end_all(pid)
            sys.exit(0)
        open_streams = read_ready(open_streams, ready)
        if done:
            for _ in range(64):  # what it has left behind may go on printing, or print nothing
                ready = select.select([stream.reader for stream in open_streams], [], [], 0)[0]
                if not ready:
                    break
                open_streams = read_ready(open_streams, ready)
            return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        if left <= 0:
            return None


def read_ready(streams: list[Stream], ready: list[int]) -> list[Stream]:
    """Read from the streams that are ready; returns those that have not ended."""
    return [stream for stream in streams if stream.reader not in ready or stream.read()]


def serve(control: socket.socket, module: str) -> None:
    """Serve one request after the other."""
    answer(control, {})
    while True:
        size = receive(control, HEAD.size)
        request = json.loads(receive(control, HEAD.unpack(size)[0]).decode())
        result, imported = perform(control, module, request)
        answer(control, result)
        import_ahead(imported)


def perform(control: socket.socket, module: str, request: dict[str, Any]) -> Performed:
    """Run a request in a fork; returns the answer, and the modules that the run has imported."""
    output = [Stream(request["output_bytes"]) for _ in range(2)]
    lines = Stream(1 << 24) if request.get("lines") else None
    streams = [*output, lines] if lines else output
    begun = time.monotonic()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        control.close()
        for stream, target in zip(output, (1, 2)):  # noqa: B905
            os.dup2(stream.writer, target)
            os.close(stream.reader)
            os.close(stream.writer)
        leave(module, request["argv"], lines.writer if lines else -1)
    for stream in streams:
        os.close(stream.writer)
    code = watch(pid, streams, begun, request["time_s"], control)
    end_all(pid)
    for stream in streams:
        os.close(stream.reader)
    result = {
        "code": code,
        "duration_s": time.monotonic() - begun,
        "stdout": output[0].text(),
        "stderr": output[1].text(),
        "cut": any(stream.cut for stream in output),
    }  # type: dict[str, object]
    imported = []  # type: list[str]
    if lines and lines.head and not lines.cut:
        with contextlib.suppress(ValueError):
            found = json.loads(lines.text())
            imported = found.pop("modules")
            result["lines"] = found
    return result, imported


def answer(control: socket.socket, value: dict) -> None:  # type: ignore[type-arg]
    data = json.dumps(value).encode()
    control.sendall(HEAD.pack(len(data)) + data)


def receive(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data


def main() -> None:
    """Serve the control socket (first argument, a descriptor) for a module (second argument)."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    module = sys.argv[2]
    warm(module)
    serve(control, module)


if __name__ == "__main__":
    main()
