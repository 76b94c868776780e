"""``Run``, the caller's view of a run: its events as they come, and how to steer or cancel it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from agentcli.agent.events import Delta, Event, ToolProgress
from agentcli.agent.state import AgentState, History, StepRecord
from agentcli.llm.client import TextDelta, ThinkingDelta

_MAX_BUFFERED = 1024
_MAX_PROGRESS = 256 * 1024


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run. ``task_result`` is the final answer.

    ``records`` are the steps of the whole session. ``events`` are the recorded events of this run,
    from its ``SessionStarted`` to its ``RunFinished``.
    """

    state: AgentState
    records: History[StepRecord]
    events: tuple[Event, ...]
    step_count: int
    task_result: str
    exit_code: int


class Run:
    """A run in progress.

    Iterate over it for its events, or just await ``result()``. A slow reader slows the kernel down;
    adjacent deltas are joined for it, nothing is dropped.
    """

    def __init__(self) -> None:
        self._buffer: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._space = asyncio.Event()
        self._readers = 0
        self._discard = False
        self._ended = False
        self._work: asyncio.Task[None] | None = None
        self._driver: asyncio.Task[RunResult] | None = None
        self._steered: deque[str] = deque()
        self.recorded: list[Event] = []
        """The durable events so far; for the kernel."""

    def attach(self, work: asyncio.Task[None], driver: asyncio.Task[RunResult]) -> None:
        """Bind the kernel's tasks; for the kernel, once."""
        self._work, self._driver = work, driver

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._readers += 1
        self._discard = False
        try:
            while True:
                while self._buffer:
                    event = self._buffer.popleft()
                    self._space.set()
                    yield event
                if self._ended:
                    return
                self._ready.clear()
                await self._ready.wait()
        finally:
            self._readers -= 1

    async def result(self) -> RunResult:
        """Wait for the end. Without a reader, the events are discarded."""
        assert self._driver is not None
        if self._readers == 0:
            self._drop()
        return await asyncio.shield(self._driver)

    def cancel(self) -> None:
        """Stop at once. The history stays well-formed, and no process is left behind."""
        if self._work is not None:
            self._work.cancel()

    async def abandon(self) -> RunResult:
        """Cancel it and wait for its end, whether or not anyone reads its events."""
        self.cancel()
        self._drop()
        return await self.result()

    def steer(self, text: str) -> None:
        """Send a message to the agent, which reads it at the start of its next step."""
        self._steered.append(text)

    def next_steered(self) -> str | None:
        """Take the first unread steering message; for the kernel."""
        return self._steered.popleft() if self._steered else None

    @property
    def has_steered(self) -> bool:
        """Whether there are steering messages that the agent has not read yet."""
        return bool(self._steered)

    @property
    def unread(self) -> tuple[str, ...]:
        """The steering messages that the agent has not read yet."""
        return tuple(self._steered)

    def take_back(self) -> str | None:
        """Remove the last of these messages; None if there is none."""
        return self._steered.pop() if self._steered else None

    @property
    def ended(self) -> bool:
        """Whether the run has ended; the next run reads what is steered from then on."""
        return self._ended

    async def put(self, event: Event) -> None:
        """Pass an event to the reader, waiting while it is too far behind; for the kernel."""
        if self._ended or self._join(event):
            return
        while len(self._buffer) >= _MAX_BUFFERED and not self._discard:
            self._space.clear()
            await self._space.wait()
        if not self._discard:
            self._buffer.append(event)
            self._ready.set()

    def end(self) -> None:
        """Signal that no more events follow; for the kernel."""
        self._ended = True
        self._ready.set()

    def _drop(self) -> None:
        """Discard the events that were not read, and those to come."""
        self._discard = True
        self._buffer.clear()
        self._space.set()

    def _join(self, event: Event) -> bool:
        if not self._buffer:
            return False
        last = self._buffer[-1]
        joined: Event
        match last, event:
            case Delta(step, TextDelta(old)), Delta(_, TextDelta(new)):
                joined = Delta(step, TextDelta(old + new))
            case Delta(step, ThinkingDelta(old, "", "")), Delta(_, ThinkingDelta(new, "", "")):
                joined = Delta(step, ThinkingDelta(old + new))
            case ToolProgress(call_id, stream, before), ToolProgress(same_id, same_stream, after):
                if (call_id, stream) != (same_id, same_stream):
                    return False
                # Progress is only for display; the result has the whole output.
                joined = ToolProgress(call_id, stream, (before + after)[-_MAX_PROGRESS:])
            case _:
                return False
        self._buffer[-1] = joined
        return True
