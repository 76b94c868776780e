"""Runs the tool calls of one answer, in parallel where they cannot affect each other."""

from __future__ import annotations

import asyncio
import json
import posixpath
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from agentcli.agent.events import (
    Event,
    RetryScheduled,
    Stage,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from agentcli.agent.recovery import TOOL_RETRIES, TRANSIENT, RetryConfig, backoff_s
from agentcli.errors import AgentCLIError, Place
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolContext, ToolKind, ToolSpec
from agentcli.tools.registry import Registry

_PARALLEL = 8
_MAX_CALLS = 128
"""Calls run per answer. A model that makes more has lost its way; the rest are skipped."""
_READS = (ToolKind.READ, ToolKind.SEARCH)


@dataclass(frozen=True, slots=True)
class Access:
    """What a call touches. ``paths`` is None when it could be anything."""

    kind: ToolKind
    paths: frozenset[str] | None


def access(call: ToolCall, spec: ToolSpec | None, root: str = "/") -> Access:
    """Derive what a call touches from its arguments.

    A call of an unknown tool touches nothing; one with malformed arguments could touch any path.
    """
    if spec is None:
        return Access(ToolKind.PLAN, frozenset())
    if not spec.path_arguments or spec.kind is ToolKind.SEARCH:  # a folder holds many paths
        return Access(spec.kind, None)
    try:
        arguments = json.loads(call.arguments)
        paths = frozenset(_normal(str(arguments[name]), root) for name in spec.path_arguments)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Access(spec.kind, None)
    return Access(spec.kind, paths)


def must_wait(earlier: Access, later: Access) -> bool:
    """Whether ``later`` may start only after ``earlier`` has ended."""
    kinds = {earlier.kind, later.kind}
    if ToolKind.PLAN in kinds or (earlier.kind in _READS and later.kind in _READS):
        return False
    if ToolKind.RUN in kinds:
        return True
    if ToolKind.EDIT not in kinds:  # checks beside reads and other checks
        return earlier.kind is ToolKind.CHECK and later.kind is ToolKind.CHECK
    if earlier.paths is None or later.paths is None:
        return True
    return bool(earlier.paths & later.paths)


def _normal(path: str, root: str) -> str:
    """Normalize a path without following links: the files may be on another machine."""
    return posixpath.normpath(posixpath.join(root, path))


class Acting:
    """Runs calls through the registry's dispatch and emits events about them.

    ``emit`` records and shows an event. ``before`` may answer a call in place of its tool.
    ``note`` records what a call changed in the workspace. ``retry`` applies to idempotent tools
    that hit a transient fault, such as a dead worker.
    """

    def __init__(
        self,
        registry: Registry,
        context: ToolContext,
        emit: Callable[..., Awaitable[None]],
        before: Callable[[ToolCall], Awaitable[ToolResult | None]],
        note: Callable[[int], Awaitable[None]],
        retry: RetryConfig = TOOL_RETRIES,
    ) -> None:
        self._registry = registry
        self._context = context
        self._emit = emit
        self._before = before
        self._note = note
        self._retry = retry

    async def run(self, step: int, calls: Sequence[ToolCall]) -> None:
        """Run all calls. Unless cancelled, each ends with a ``ToolFinished`` event.

        Raises:
            JournalError: a start or an end could not be recorded; running calls are cancelled.
        """
        for call in calls[_MAX_CALLS:]:
            text = f"not run: one answer may make {_MAX_CALLS} calls, this one made {len(calls)}"
            skipped = ToolResult(call.id, call.name, text, Outcome.SKIPPED)
            await self._emit(ToolFinished(step, skipped))
        calls = calls[:_MAX_CALLS]
        root = self._context.environment.root
        # Dependencies come first; otherwise the model's order is kept (the sort is stable).
        calls = sorted(calls, key=lambda call: self._registry.wave(call.name))
        accesses = [access(call, self._registry.spec(call.name), root) for call in calls]
        slots = asyncio.Semaphore(_PARALLEL)
        tasks: list[asyncio.Task[None]] = []
        for index, call in enumerate(calls):
            waits = [
                tasks[earlier]
                for earlier in range(index)
                if must_wait(accesses[earlier], accesses[index])
                or self._depends(call, calls[earlier])
            ]
            tasks.append(asyncio.create_task(self._run_one(step, call, waits, slots)))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _depends(self, call: ToolCall, earlier: ToolCall) -> bool:
        spec, other = self._registry.spec(call.name), self._registry.spec(earlier.name)
        return spec is not None and other is not None and other.name in spec.depends_on

    async def _run_one(
        self,
        step: int,
        call: ToolCall,
        waits: list[asyncio.Task[None]],
        slots: asyncio.Semaphore,
    ) -> None:
        if waits:
            await asyncio.wait(waits)
        async with slots:
            try:
                await self._carry_out(step, call)
            except AgentCLIError as error:
                place = Place(step, Stage.ACT.value, tool=call.name, call_id=call.id)
                error.place = error.place or place
                raise

    async def _carry_out(self, step: int, call: ToolCall) -> None:
        answered = await self._before(call)
        if answered is not None:
            await self._emit(ToolFinished(step, answered))
            return
        spec = self._registry.spec(call.name)
        # The start of a call that may change files must survive a power failure, hence ``sync``.
        kind, purpose = spec.kind if spec else None, self._registry.purpose(call)
        changes_files = kind is not None and kind.changes_files
        await self._emit(
            ToolStarted(step, call, kind or "", (purpose or "") if purpose is not kind else ""),
            sync=changes_files,
        )
        started = time.monotonic()
        async with _Progress(call.id, self._emit) as progress:
            context = replace(self._context, call_id=call.id, progress=progress)
            result = await self._dispatch(step, call, context, again=bool(spec and spec.retryable))
        duration_s = time.monotonic() - started
        if changes_files:  # now, not at the step's end, which a killed process does not reach
            await self._note(step)
        await self._emit(ToolFinished(step, result, duration_s))

    async def _dispatch(
        self, step: int, call: ToolCall, context: ToolContext, *, again: bool
    ) -> ToolResult:
        attempt = 1
        while True:
            result = await self._registry.dispatch(call, context)
            faulty = result.outcome is Outcome.ERROR and result.data.get("code") in TRANSIENT
            if not faulty or not again or attempt >= self._retry.attempts:
                return _counted(result, attempt)
            pause_s, reason = backoff_s(self._retry, attempt), result.content
            await self._emit(
                RetryScheduled(step, Stage.ACT, attempt, pause_s, reason, call.name, call.id)
            )
            await asyncio.sleep(pause_s)
            attempt += 1


def _counted(result: ToolResult, attempts: int) -> ToolResult:
    return replace(result, data={**result.data, "attempts": attempts}) if attempts > 1 else result


class _Progress:
    """Turns a tool's output, which arrives through a plain callback, into events."""

    def __init__(self, call_id: str, emit: Callable[[Event], Awaitable[None]]) -> None:
        self._call_id = call_id
        self._emit = emit
        self._waiting: list[tuple[str, bytes]] = []
        self._ready = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def __call__(self, stream: str, data: bytes) -> None:
        self._waiting.append((stream, data))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())
        self._ready.set()

    async def __aenter__(self) -> _Progress:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._pump is None:
            return
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        if exc[0] is None:
            await self._flush()

    async def _run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._flush()

    async def _flush(self) -> None:
        while self._waiting:
            stream, data = self._waiting.pop(0)
            await self._emit(ToolProgress(self._call_id, stream, data))
