"""Measures how fast the chat's screen is, through a real terminal (a pty).

    python bench/tui.py [--messages 5000] [--keys 200]

- first paint: from the start of the command to the prompt on the screen
- resumed: the same for a session of many messages, to its last answer on the screen
- keys: from a key written to the terminal to its character read back, with a different character
  each time and at random moments. Measured at rest, while 200 deltas a second stream in above, and
  while the embedded model works in its own process; in the first two cases the session is long
- idle: CPU time of the process when nothing happens

Run it on an idle machine, as other load distorts the figures. Or run it as root with --real-time:
then the chat and this program take precedence over everything else, including what the chat starts
itself (its sandboxes, the model's process).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agentcli.agent.events import (  # noqa: E402
    Event,
    MessageAdded,
    ModelAnswered,
    RunFinished,
    SessionStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.records import to_record  # noqa: E402
from agentcli.messages import (  # noqa: E402
    FinishReason,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    user,
)
from agentcli.session.trace import rewrite  # noqa: E402
from tests.server import Reply, ScriptedServer  # noqa: E402

SIZE = (120, 40)
PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}".encode()
KEYS = [chr(code) for code in range(0x0410, 0x0430)]  # no two the same within one prompt
PAUSE_S = (0.02, 0.06)
BEFORE: list[str] = []
"""A command prefix that starts the chat."""
DELTA_BYTES = 205  # about one event of the wire with a few words in it


class Terminal:
    """A chat in its own pty."""

    def __init__(
        self,
        home: Path,
        workspace: Path,
        *arguments: str,
        server: str = "",
        model: str = "openai:bench",
    ) -> None:
        self.output = b""
        columns, rows = SIZE
        self.fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
            "AGENTCLI_DATA_DIR": str(home / "data"),
            "AGENTCLI_CONFIG_DIR": str(home / "config"),
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": server,
            "PYTHONPATH": str(ROOT),
        }
        command = [*BEFORE, sys.executable, "-m", "agentcli", "chat", *arguments]
        command += ["--model", model]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=workspace,
            env=env,
            start_new_session=True,
        )
        os.close(child)

    def read(self, timeout_s: float) -> bytes:
        """Read what is available, waiting at most ``timeout_s`` for it."""
        ready, _, _ = select.select([self.fd], [], [], timeout_s)
        if not ready:
            return b""
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            return b""
        self.output += data
        return data

    def until(self, wanted: bytes, patience_s: float = 60.0) -> float:
        """Wait for this output; return the seconds since the start of the process."""
        end = time.perf_counter() + patience_s
        while wanted not in self.output:
            if time.perf_counter() > end or self.process.poll() is not None:
                raise SystemExit(f"never saw {wanted!r}; the end was {self.output[-2000:]!r}")
            self.read(1.0)
        return time.perf_counter() - self.started

    def settle(self, quiet_s: float = 1.0) -> None:
        """Read until there is no output for ``quiet_s`` seconds."""
        while self.read(quiet_s):
            pass

    def key(self, text: str, patience_s: float = 5.0) -> float:
        """Press a key; return the seconds until its character is on the screen."""
        self.output = b""
        wanted = text.encode()
        start = time.perf_counter()
        os.write(self.fd, wanted)
        while wanted not in self.output:
            self.read(0.5)
            if time.perf_counter() - start > patience_s:
                raise SystemExit("the key was never shown")
        return time.perf_counter() - start

    def keys(self, count: int, going_on: Callable[[], bool] = lambda: True) -> list[float]:
        """Press ``count`` keys at random moments, or fewer if ``going_on`` turns false."""
        chance = random.Random(0)
        times: list[float] = []
        while len(times) < count and going_on():
            times += [self._after_a_while(chance, text) for text in KEYS[: count - len(times)]]
            os.write(self.fd, b"\x03")  # clears the prompt
            self._read_for(0.3)
        return times

    def _after_a_while(self, chance: random.Random, text: str) -> float:
        self._read_for(chance.uniform(*PAUSE_S))
        return self.key(text)

    def _read_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.read(left)

    def end(self) -> None:
        """Terminate the process."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)


def journal(home: Path, workspace: Path, messages: int) -> str:
    """Write a session with this many messages; return its id."""
    session = "20260101-000000-abcdef"
    path = home / "data" / "sessions" / session / "events.jsonl"
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"v": 1, **to_record(event)}) + "\n"
            for event in _events(session, workspace, messages)
        )
    rewrite(path.parent)  # the trace, as every session has one
    return session


def _events(session: str, workspace: Path, messages: int) -> Iterator[Event]:
    yield SessionStarted(session, str(workspace), "openai:bench", "ask", "full", (), "0")
    usage = Usage(1000, 900, 0, 100, 0)
    for turn in range(messages // 4):
        step = 2 * turn + 1
        text = f"Question {turn}: how does part {turn % 17} work?"
        yield TaskGiven(text)
        yield MessageAdded(user(text))
        yield StepStarted(step)
        call = ToolCall(f"call-{turn}", "read_file", json.dumps({"path": f"part{turn % 17}.py"}))
        reason = FinishReason.TOOL_CALLS
        yield ModelAnswered(step, assistant("Let me look.", call), reason, usage, 0.1, 1.0)
        yield ToolStarted(step, call, "read")
        lines = "\n".join(f"{n}\tline {n} of the file" for n in range(1, 30))
        yield ToolFinished(step, ToolResult(call.id, "read_file", lines), 0.01)
        yield StepFinished(step, 1.1)
        yield StepStarted(step + 1)
        answer = (
            f"It works **like this** ({turn}):\n\n1. first `a`\n2. then `b`\n\n"
            "```python\ndef part(x: int) -> int:\n    return x + 1\n```\n"
        )
        yield ModelAnswered(step + 1, assistant(answer), FinishReason.STOP, usage, 0.1, 1.0)
        yield StepFinished(step + 1, 1.0)
        yield RunFinished(StopReason.FINAL, Status.SOLVED, answer)


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--no-model", action="store_true", help="leave the embedded model out")
    parser.add_argument("--real-time", action="store_true", help="the chat before all others")
    options = parser.parse_args()
    if options.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(20))
        BEFORE[:] = ["chrt", "--reset-on-fork", "--rr", "10"]
    words = "Some words that stream into the *transcript* as a model writes them. "
    text = "\n\n".join(words * 4 for _ in range(400))
    reply = Reply(text=text, piece=20, split=DELTA_BYTES, pause_s=0.005)
    with tempfile.TemporaryDirectory() as folder, ScriptedServer([reply], repeat=True) as server:
        home, workspace = Path(folder) / "home", Path(folder) / "work"
        home.mkdir()
        workspace.mkdir()
        paints = []
        for _ in range(options.starts):
            terminal = Terminal(home, workspace, server=server.url)
            paints.append(terminal.until(PROMPT))
            terminal.end()
        print(f"first paint       {statistics.median(paints) * 1e3:7.0f} ms (median)")

        terminal = Terminal(home, workspace, server=server.url)
        terminal.until(b"openai:bench")
        terminal.settle()
        process = psutil.Process(terminal.process.pid)
        before, since = process.cpu_times(), time.perf_counter()
        terminal.settle(5.0)
        after, took = process.cpu_times(), time.perf_counter() - since
        used = after.user + after.system - before.user - before.system
        print(f"idle processor    {used / took * 100:7.2f} %")
        terminal.end()

        session = journal(home, workspace, options.messages)
        terminal = Terminal(home, workspace, "--resume", session, server=server.url)
        last = f"({options.messages // 4 - 1})".encode()
        print(
            f"resumed           {terminal.until(last) * 1e3:7.0f} ms, {options.messages} messages"
        )
        terminal.until(b"openai:bench")
        terminal.settle()
        report("keys, at rest", terminal.keys(options.keys))
        os.write(terminal.fd, b"go\r")
        terminal.until(b"stream into")
        report("keys, 200 deltas/s", terminal.keys(options.keys))
        terminal.end()
    if not options.no_model:
        with tempfile.TemporaryDirectory() as folder:
            decoding(Path(folder), options.keys)


def decoding(folder: Path, count: int) -> None:
    """Measure keys while the embedded model fixes a bug."""
    home, workspace = folder / "home", folder / "work"
    home.mkdir()
    shutil.copytree(ROOT / "examples" / "fix-share" / "repo", workspace)
    terminal = Terminal(home, workspace, "--mode", "auto", model="embedded")
    terminal.until(b"sandbox")
    terminal.settle()
    os.write(terminal.fd, b"the tests fail, fix it\r")
    terminal.until(b"esc interrupts")
    report("keys, model works", terminal.keys(count, lambda: b"interrupts" in terminal.output))
    terminal.end()


def report(name: str, times: list[float]) -> None:
    """Print one line of the table."""
    print(
        f"{name:<18}{len(times):4} keys,{percentile(times, 0.5) * 1e3:7.1f} ms median,"
        f" {percentile(times, 0.95) * 1e3:.1f} ms p95, {max(times) * 1e3:.1f} ms most"
    )


if __name__ == "__main__":
    main()
