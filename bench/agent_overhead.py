"""Measures the overhead of a step of `agentcli run`, compared with a minimal loop.

    python bench/agent_overhead.py [--steps 30 300] [--rounds 5] [--wire chat|responses|messages]

A separate server process answers every request at once: with a call of the tool `shell` that runs
`true` for each step, then with a final answer. Three kinds of processes take turns, so that other
load on the machine affects all of them alike: `agentcli run`, a minimal loop with the standard
library (one connection, no sandbox, the whole body encoded again for each request), and a single
request with the SDK. Times are medians over the rounds; the goals are those of the project.

    step        from the last byte of an answer to the next whole request, as the server sees it
    beyond      the step minus the tool's own time (as recorded in the session's journal)
    growth      median step of the last tenth / median step of the first tenth
    first       from the start of the process to its first whole request
    exit        from the last byte of the last answer to the end of the process
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOOL = json.dumps({"command": "true"})

MINIMAL = """
import http.client, json, os, subprocess, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
link = http.client.HTTPConnection(url.hostname, url.port)
messages = [{"role": "user", "content": "go"}]
while True:
    body = json.dumps({"model": "bench", "stream": True, "messages": messages})
    link.request("POST", url.path + "/chat/completions", body, {"content-type": "application/json"})
    call = None
    for line in link.getresponse().read().split(b"\\n"):
        if not line.startswith(b"data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                if call is None:
                    call = piece
                else:
                    call["function"]["arguments"] += piece["function"]["arguments"]
    if call is None:
        break
    command = json.loads(call["function"]["arguments"])["command"]
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True)
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    text = f"exit code {done.returncode}"
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
"""

BARE = {
    "chat": """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-bench", max_retries=0)
client.chat.completions.create(model="bench", messages=[{"role": "user", "content": "go"}])
""",
    "responses": """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-bench", max_retries=0)
client.responses.create(model="bench", input="go")
""",
    "messages": """
import anthropic, sys
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="sk-bench", max_retries=0)
asked = [{"role": "user", "content": "go"}]
client.messages.create(model="bench", max_tokens=99, messages=asked)
""",
}


def events(wire: str, number: int, last: bool) -> bytes:
    """One answer: a call of the tool, or the final answer."""
    if wire == "chat":
        return b"".join(_sse("", event) for event in _chat(number, last)) + b"data: [DONE]\n\n"
    answer = _responses if wire == "responses" else _messages
    return b"".join(_sse(event["type"], event) for event in answer(number, last))


def _sse(name: str, event: Mapping[str, Any]) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def _chat(number: int, last: bool) -> Iterator[dict[str, Any]]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "x", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}

    yield chunk({"role": "assistant", "content": "" if not last else "done"})
    if not last:
        function = {"name": "shell", "arguments": ""}
        first = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
        yield chunk({"tool_calls": [first]})
        for start in range(0, len(TOOL), 6):
            piece = {"index": 0, "function": {"arguments": TOOL[start : start + 6]}}
            yield chunk({"tool_calls": [piece]})
    yield chunk({}, "stop" if last else "tool_calls")
    yield {**chunk({}), "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}


def _responses(number: int, last: bool) -> Iterator[dict[str, Any]]:
    usage = {"input_tokens": 100, "output_tokens": 10}
    head: dict[str, Any] = {"id": "r", "object": "response", "status": "in_progress", "output": []}
    yield {"type": "response.created", "response": head}
    place = {"output_index": 0, "item_id": "i"}
    if last:
        item: dict[str, Any] = {"type": "message", "id": "i", "role": "assistant", "content": []}
        yield {"type": "response.output_item.added", **place, "item": item}
        yield {"type": "response.output_text.delta", **place, "content_index": 0, "delta": "done"}
        item = {**item, "content": [{"type": "output_text", "text": "done", "annotations": []}]}
    else:
        item = {"type": "function_call", "id": "i", "call_id": f"call_{number}", "name": "shell"}
        yield {"type": "response.output_item.added", **place, "item": {**item, "arguments": ""}}
        for start in range(0, len(TOOL), 6):
            delta = TOOL[start : start + 6]
            yield {"type": "response.function_call_arguments.delta", **place, "delta": delta}
        item = {**item, "arguments": TOOL}
    yield {"type": "response.output_item.done", **place, "item": item}
    end = {**head, "status": "completed", "output": [item], "usage": usage}
    yield {"type": "response.completed", "response": end}


def _messages(number: int, last: bool) -> Iterator[dict[str, Any]]:
    usage = {"input_tokens": 100, "output_tokens": 1}
    head = {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": usage}
    yield {"type": "message_start", "message": head}
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": "done"}]
    if not last:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": "shell", "input": {}}
        pieces = [TOOL[start : start + 6] for start in range(0, len(TOOL), 6)]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn" if last else "tool_use", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 10}}
    yield {"type": "message_stop"}


@dataclass
class Seen:
    """What the server saw of one run; times in seconds of the system's monotonic clock."""

    asked: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    connections: int = 0


def serve(wire: str) -> None:
    """Answer until killed. Paths are /RUN/STEPS/...; /RUN/STEPS/report returns what was seen.

    Request bodies are received but not parsed, so that the server's time does not grow with them.
    """
    runs: dict[str, Seen] = {}
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        link, _ = listener.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_attend, args=(link, wire, runs), daemon=True).start()


def _attend(link: socket.socket, wire: str, runs: dict[str, Seen]) -> None:
    with contextlib.suppress(ConnectionError):
        _talk(link, wire, runs)


def _talk(link: socket.socket, wire: str, runs: dict[str, Seen]) -> None:
    stream = link.makefile("rb")
    known = ""
    while first := stream.readline():
        _, path, _ = first.decode().split(" ", 2)
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = stream.read(length)
        now = time.monotonic()
        _, run, steps, *rest = path.split("/")
        seen = runs.setdefault(run, Seen())
        if rest == ["report"]:
            text = json.dumps(vars(seen)).encode()
            link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
            continue
        seen.connections += run != known
        known = run
        seen.asked.append(now)
        seen.sizes.append(length)
        number = len(seen.asked)
        if b'"stream":true' in body[:4096] or b'"stream": true' in body[:4096]:
            kind, text = b"text/event-stream", events(wire, number, number > int(steps))
        else:
            kind, text = b"application/json", b'{"choices": []}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
        link.sendall(head % (kind, len(text)) + text)
        seen.answered.append(time.monotonic())


@dataclass
class Ran:
    """One whole process. Times in seconds, memory in MB."""

    seen: Seen
    steps: list[float]
    first: float
    exit: float
    whole: float
    memory: float
    tools: list[float] = field(default_factory=list)


class Bench:
    """Starts processes against the server and reads what it saw."""

    def __init__(self, port: int, wire: str, folder: Path) -> None:
        self._root = f"http://127.0.0.1:{port}"
        self._wire = wire
        self._folder = folder
        self._count = 0

    def agentcli(self, steps: int, *options: str) -> Ran:
        """Run `agentcli run` with this many steps."""
        home = self._folder / "home"
        shutil.rmtree(home / "data", ignore_errors=True)
        workspace = home / "workspace"
        workspace.mkdir(parents=True, exist_ok=True)
        model = "anthropic:bench" if self._wire == "messages" else "openai:bench"
        arguments = ["-m", "agentcli", "run", "-p", "go", "--model", model, "--output", "json"]
        arguments += ["--max-steps", str(steps + 9), "--workspace", str(workspace), *options]
        ran = self._run(steps, arguments, home)
        (journal,) = (home / "data" / "sessions").glob("*/events.jsonl")
        for line in journal.read_text().splitlines():
            event = json.loads(line)
            if event["kind"] == "tool_finished":
                assert event["result"]["outcome"] == "ok", event
                ran.tools.append(event["duration_s"])
        assert len(ran.tools) == steps, "the run ended early"
        return ran

    def minimal(self, steps: int) -> Ran:
        """Run the minimal loop."""
        return self._run(steps, ["-I", "-c", MINIMAL, "URL"], self._folder)

    def bare(self) -> Ran:
        """Import the SDK and send one request."""
        return self._run(0, ["-c", BARE[self._wire], "URL"], self._folder)

    def _run(self, steps: int, arguments: list[str], home: Path) -> Ran:
        self._count += 1
        base = f"{self._root}/r{self._count}/{steps}"
        url = base if self._wire == "messages" else f"{base}/v1"
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "AGENTCLI_DATA_DIR": str(home / "data"),
            "OPENAI_API_KEY": "sk-bench-0123456789",
            "ANTHROPIC_API_KEY": "sk-bench-0123456789",
            "OPENAI_BASE_URL": url,
            "ANTHROPIC_BASE_URL": url,
        }
        if self._wire == "responses":
            env["AGENTCLI_PROVIDERS__OPENAI__API"] = "responses"
        command = [sys.executable, *(url if word == "URL" else word for word in arguments)]
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        with urllib.request.urlopen(f"{base}/report") as answer:
            seen = Seen(**json.load(answer))
        if steps and (process.returncode or len(seen.asked) != steps + 1):
            raise SystemExit(f"{command[1:4]} failed: {errors.decode()}")
        pairs = zip(seen.answered, seen.asked[1:], strict=False)
        return Ran(
            seen,
            [asked - answered for answered, asked in pairs],
            seen.asked[0] - started,
            ended - seen.answered[-1],
            ended - started,
            usage.ru_maxrss / 1024 * 1.048576,
        )


def growth(times: list[float]) -> float:
    """Median of the last tenth / median of the first tenth."""
    tenth = max(1, len(times) // 10)
    return statistics.median(times[-tenth:]) / statistics.median(times[:tenth])


def median(values: Iterator[float]) -> float:
    """The median over the rounds."""
    return statistics.median(list(values))


def report(steps: int, agent: list[Ran], bare: list[Ran], minimal: list[Ran]) -> None:
    """Print one table, with the goals next to the figures."""
    step = median(statistics.median(ran.steps) for ran in agent)
    tool = median(statistics.median(ran.tools) for ran in agent)
    own = [[s - t for s, t in zip(ran.steps, ran.tools, strict=True)] for ran in agent]
    beyond = median(statistics.median(times) for times in own)
    grown = median(growth(ran.steps) for ran in agent)
    grown_own = median(growth(times) for times in own)
    first = median(ran.first for ran in agent)
    first_bare = median(ran.first for ran in bare)
    connections = max(ran.seen.connections for ran in agent)
    print(f"{steps} steps, {len(agent)} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"  step                     {step * 1e3:7.1f} ms")
    print(f"    the sandboxed tool     {tool * 1e3:7.1f} ms")
    print(f"    beyond the tool        {beyond * 1e3:7.1f} ms   goal 10")
    if minimal:
        least = median(statistics.median(ran.steps) for ran in minimal)
        print(f"    of the minimal loop    {least * 1e3:7.1f} ms")
        print(f"    beyond that            {(step - least) * 1e3:7.1f} ms   goal 20")
    print(f"  growth, last/first tenth {grown:7.2f}      goal 1.2; beyond the tool {grown_own:.2f}")
    if minimal:
        print(f"    of the minimal loop    {median(growth(ran.steps) for ran in minimal):7.2f}")
    print(f"  connections              {connections:7d}      goal 1")
    print(f"  first request            {first * 1e3:7.0f} ms   bare SDK {first_bare * 1e3:.0f} ms")
    print(f"    ratio                  {first / first_bare:7.2f}      goal 1.15")
    print(f"  exit                     {median(r.exit for r in agent) * 1e3:7.1f} ms   goal 50")
    print(f"  peak memory              {max(ran.memory for ran in agent):7.0f} MB   goal 150")
    sizes = agent[0].seen.sizes
    print(f"  body                     {sizes[0] / 1e3:.1f} kB to {sizes[-1] / 1e3:.1f} kB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wire", choices=sorted(BARE), default="chat")
    parser.add_argument("--no-sandbox", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.wire)
    command = [sys.executable, __file__, "--serve", "--wire", chosen.wire]
    options = ["--no-sandbox"] if chosen.no_sandbox else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(port, chosen.wire, Path(folder))
            other = Bench(port, "chat", Path(folder))
            other._count = 1_000_000
            bench.agentcli(1, *options)  # caches and bytecode
            for steps in chosen.steps:
                agent, bare, minimal = [], [], []
                for _ in range(chosen.rounds):
                    agent.append(bench.agentcli(steps, *options))
                    bare.append(bench.bare())
                    if chosen.wire == "chat":
                        minimal.append(other.minimal(steps))
                report(steps, agent, bare, minimal)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
