"""Measures the kernel's own work per step: counting, compacting, folding, journalling, requests.

    python bench/kernel.py [--steps 10 100 1000 5000] [--window 200000] [--result 1000]

The model is scripted in the process, behind the real Chat Completions client: requests are encoded
and answers decoded as usual, but nothing is sent. Each step makes one call of a tool that returns
``--result`` characters at once, and changes one of ten files. For each number of steps it prints
CPU milliseconds per step (the median of the first ten and of the last tenth), the messages in the
history and those shown to the model, compactions, and how much the process and its journal grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import Event, StepFinished
from agentcli.agent.hooks import Hook
from agentcli.agent.kernel import Agent
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.agent.state import AgentState
from agentcli.environments.base import Changes
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.session.journal import Journal
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import tool


class Scripted(OpenAIChat):
    """A model that calls one tool in each step, and then gives its final answer."""

    def __init__(self, steps: int, window: int | None) -> None:
        info = ModelInfo("scripted", "bench", context_window=window)
        super().__init__(info, "", "http://127.0.0.1:9/v1")
        self.left = steps - 1
        self.sent = 0

    async def _post(self, body: bytes) -> httpx2.Response:
        self.sent = len(body)
        self.left -= 1
        delta: dict[str, object] = {"content": "done"}
        if self.left >= 0:
            function = {"name": "look", "arguments": json.dumps({"at": f"place {self.left}"})}
            call = {"index": 0, "id": f"c{self.left}", "type": "function", "function": function}
            delta = {"content": "I look at the next one.", "tool_calls": [call]}
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 30}
        chunks = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        lines = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        return httpx2.Response(
            200,
            headers={"content-type": "text/event-stream"},
            stream=_Stream(lines + b"data: [DONE]\n\n"),
            request=httpx2.Request("POST", "http://127.0.0.1:9/v1/chat/completions"),
        )


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data


class Clock(Hook):
    """Records the CPU time of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._last = time.process_time()

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Record the end of a step."""
        if isinstance(event, StepFinished):
            now = time.process_time()
            self.steps.append(now - self._last)
            self._last = now


class Changing:
    """A recorder that reports one changed file after each step."""

    problem = ""

    def __init__(self) -> None:
        self._steps = 0

    def taken(self) -> None:
        """There is no list of all files."""

    async def drain(self) -> list[Changes]:
        """The change of the last step."""
        step = self._steps = self._steps + 1
        path = f"file{step % 10}.py"
        before, after = (f"file 644 {number:040x}" for number in (max(step - 10, 0), step))
        return [Changes({path: before}, {path: after}, False)]


async def measure(steps: int, window: int | None, chars: int) -> str:
    """Make one run and return its line of the table."""

    async def look(context: ToolContext, at: str) -> str:
        """Look at something."""
        return (f"{at}: some text " * (chars // 16 + 1))[:chars]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock, client = Clock(), Scripted(steps, window)
    # Without summaries: the scripted model cannot write one.
    names = [name for name in STANDARD if not name.startswith("summarize")]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "events.jsonl")
        agent = Agent(
            client,
            [tool(look, ToolKind.READ)],
            log=journal,
            hooks=[clock],
            recorder=Changing(),
            limits=RunLimits(max_steps=steps + 1),
            processors=processors_named(names),
        )
        result = await agent.start("look at everything").result()
        journal.close()
        held = (Path(folder) / "events.jsonl").stat().st_size
    await client.aclose()
    assert result.step_count == steps, result.state.detail
    state = result.state
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    last = clock.steps[-max(10, steps // 10) :]
    return (
        f"{steps:>6} {statistics.median(clock.steps[:10]) * 1e3:>9.2f} "
        f"{statistics.median(last) * 1e3:>8.2f} {max(last) * 1e3:>8.1f} "
        f"{len(state.history):>9,} {len(state.view):>9,} {client.sent / 1e3:>9,.0f} "
        f"{len(state.compactions):>5} {grown / 1024:>8.0f} {held / 1e6:>9.1f}"
    )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--window", type=int, default=200_000, help="tokens; 0: none")
    parser.add_argument("--result", type=int, default=1000, help="characters of a tool's result")
    given = parser.parse_args()
    print(
        " steps  first ms  last ms   max ms  messages     shown   body kB  comp   MB new journal MB"
    )
    for steps in given.steps:
        gc.collect()
        print(asyncio.run(measure(steps, given.window or None, given.result)), flush=True)


if __name__ == "__main__":
    main()
