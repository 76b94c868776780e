"""Background commands: started by the tool ``shell``, managed by the tool ``jobs``.

Each runs in the sandbox like any other command, with the same limits except for time. All of them
end with the session.
"""

from __future__ import annotations

import asyncio
import codecs
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from agentcli.environments.base import Environment, ExecResult
from agentcli.errors import AgentCLIError, ToolError, ToolInputError
from agentcli.sandbox.limits import MIB, Limits
from agentcli.text import plain_output

TIME_S = 12 * 3600.0
MOST_RUNNING = 8
OUTPUT_BYTES = 16 * MIB
"""Per stream. The first half is delivered in full, after that samples of the newest output."""
MOST_TAIL = 64 * 1024
"""Characters at the end of the output that the user can look at."""
MOST_UNREAD = 256 * 1024
"""Characters of unread output that are kept; the oldest are dropped."""

_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?\Z")
"""A sequence of which the rest has not been received yet."""


class Job:
    """One background command; ids count from 1 within a session."""

    def __init__(self, id: str, command: str) -> None:
        self.id = id
        self.command = command
        self.started = time.monotonic()
        self.result: ExecResult | None = None
        self._task: asyncio.Task[None] | None = None
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")
        }
        self._tail = ""
        self._unread = ""
        self._dropped = 0
        self._news = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._task is not None and not self._task.done()

    @property
    def tail(self) -> str:
        """The end of its output, read or not."""
        return plain_output(self._tail)

    def start(
        self,
        environment: Environment,
        argv: Sequence[str],
        limits: Limits,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the command. ``result`` is set when it ends, unless it was killed."""
        limits = replace(limits, time_s=TIME_S, output_bytes=OUTPUT_BYTES)
        self._task = asyncio.create_task(self._run(environment, argv, limits, env))

    async def _run(
        self,
        environment: Environment,
        argv: Sequence[str],
        limits: Limits,
        env: Mapping[str, str] | None,
    ) -> None:
        try:
            self.result = await environment.exec(argv, limits=limits, env=env, on_output=self._add)
        except AgentCLIError as error:
            self.result = ExecResult(success=False, exit_code=None, error=error.line())
        finally:
            self._news.set()

    def _add(self, stream: str, data: bytes) -> None:
        text = self._decoders[stream].decode(data)
        self._tail = (self._tail + text)[-MOST_TAIL:]
        self._unread += text
        if (excess := len(self._unread) - MOST_UNREAD) > 0:
            self._unread = self._unread[excess:]
            self._dropped += excess
        self._news.set()

    async def settled(self, wait_s: float) -> None:
        """Wait until it ends, at most ``wait_s`` seconds."""
        if self._task is not None and self.running:
            await asyncio.wait([self._task], timeout=wait_s)

    async def news(self, wait_s: float) -> None:
        """Wait until there is something to read or it ends, at most ``wait_s`` seconds."""
        try:
            async with asyncio.timeout(wait_s):
                while self.running and not self._unread:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    def read(self, most: int) -> str:
        """Return the output since the last read, limited to its last ``most`` characters."""
        text, dropped = self._unread, self._dropped
        begun = _BEGUN.search(text) if self.running else None
        end = begun.start() if begun else len(text)
        self._unread, self._dropped = text[end:], 0
        text = plain_output(text[:end])
        dropped += max(0, len(text) - most)
        note = f"[{dropped:,} characters left out]\n" if dropped else ""
        return note + text[-most:]

    async def kill(self) -> None:
        """Kill it and everything it started."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Jobs:
    """The background commands of one session."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def start(
        self,
        environment: Environment,
        command: str,
        argv: Sequence[str],
        limits: Limits,
        env: Mapping[str, str] | None = None,
    ) -> Job:
        """Start a command; ``command`` is the text shown for it.

        Raises:
            ToolError: too many background commands are running.
        """
        if sum(job.running for job in self) >= MOST_RUNNING:
            raise ToolError(f"{MOST_RUNNING} background commands are running: kill one first")
        job = Job(str(next(self._numbers)), command)
        self._jobs[job.id] = job
        job.start(environment, argv, limits, env)
        return job

    def get(self, id: str) -> Job:
        """Return the job with this id.

        Raises:
            ToolInputError: there is no such job.
        """
        job = self._jobs.get(id)
        if job is None:
            there = ", ".join(self._jobs) or "none"
            raise ToolInputError(f'there is no background command "{id}"; there are: {there}')
        return job

    async def aclose(self) -> None:
        """Kill all that are still running."""
        await asyncio.gather(*(job.kill() for job in self))
