"""Middleware around the execution of every tool call.

A call arrives validated and permitted. Each middleware gets the call and a function that executes
it; it can delay the call, answer instead of it, or inspect its result.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from agentcli.environments.base import FileStat
from agentcli.messages import Outcome, ToolCall
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput, ToolSpec

CarryOut: TypeAlias = Callable[[], Awaitable[ToolOutput]]


@dataclass(frozen=True, slots=True)
class Execution:
    """A call that is about to run."""

    spec: ToolSpec
    call: ToolCall
    arguments: Mapping[str, Any]
    context: ToolContext

    @property
    def paths(self) -> frozenset[str]:
        """The files that its arguments name, normalized."""
        root = self.context.environment.root
        given = (self.arguments.get(name) for name in self.spec.path_arguments)
        return frozenset(
            posixpath.normpath(posixpath.join(root, path))
            for path in given
            if isinstance(path, str)
        )


class Middleware(Protocol):
    """Wraps the execution of calls; see the module."""

    async def around(self, execution: Execution, carry_out: CarryOut) -> ToolOutput:
        """Return the call's output. An ``AgentCLIError`` is reported to the model."""
        ...


class BeforeAfter:
    """Calls functions before and after each call.

    ``before`` may answer in the tool's place; ``after`` may replace the output.
    """

    def __init__(
        self,
        before: Callable[[Execution], Awaitable[ToolOutput | None]] | None = None,
        after: Callable[[Execution, ToolOutput], Awaitable[ToolOutput]] | None = None,
    ) -> None:
        self._before = before
        self._after = after

    async def around(self, execution: Execution, carry_out: CarryOut) -> ToolOutput:
        """See ``Middleware``."""
        output = await self._before(execution) if self._before else None
        if output is None:
            output = await carry_out()
        return await self._after(execution, output) if self._after else output


class RateLimit:
    """Starts at most ``calls`` calls of the named tools in ``seconds``; others wait their turn."""

    def __init__(self, names: Iterable[str], calls: int, seconds: float = 1.0) -> None:
        """Raises ``ValueError`` if no call could ever start."""
        if calls < 1 or seconds <= 0:
            raise ValueError("calls must be at least 1 and seconds more than 0")
        self._names = frozenset(names)
        self._calls = calls
        self._seconds = seconds
        self._begun: deque[float] = deque()
        self._turn = asyncio.Lock()

    async def around(self, execution: Execution, carry_out: CarryOut) -> ToolOutput:
        """See ``Middleware``."""
        if execution.spec.name in self._names:
            async with self._turn:
                if len(self._begun) == self._calls:
                    await asyncio.sleep(self._begun[0] + self._seconds - time.monotonic())
                    self._begun.popleft()
                self._begun.append(time.monotonic())
        return await carry_out()


@dataclass(frozen=True, slots=True)
class _Kept:
    output: ToolOutput
    paths: frozenset[str]
    stats: tuple[FileStat | None, ...]


class Cache:
    """Answers a repeated call from memory.

    It applies to tools that are ``retryable``, only read, and name their files. An edit of such a
    file drops its answers; a command or a check, which may change anything, drops all. Changes made
    by other programs are detected by a file's size and time.
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()
        self.hits = 0

    async def around(self, execution: Execution, carry_out: CarryOut) -> ToolOutput:
        """See ``Middleware``."""
        spec = execution.spec
        if spec.kind.changes_files:
            self._forget(execution)
            try:
                return await carry_out()
            finally:
                self._forget(execution)  # drops what was read while it ran
        if not (spec.retryable and spec.kind is ToolKind.READ and execution.paths):
            return await carry_out()
        arguments = json.dumps(dict(execution.arguments), sort_keys=True)
        key = (spec.name, spec.version, arguments)
        stats = await self._stats(execution)
        kept = self._kept.get(key)
        if kept is not None and kept.stats == stats:
            self._kept.move_to_end(key)
            self.hits += 1
            return replace(kept.output, data={**kept.output.data, "cached": True})
        output = await carry_out()
        if output.outcome is Outcome.OK and stats == await self._stats(execution):
            self._kept[key] = _Kept(output, execution.paths, stats)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return output

    def _forget(self, execution: Execution) -> None:
        if execution.spec.kind is not ToolKind.EDIT or not execution.paths:
            self._kept.clear()
            return
        stale = [key for key, kept in self._kept.items() if kept.paths & execution.paths]
        for key in stale:
            del self._kept[key]

    async def _stats(self, execution: Execution) -> tuple[FileStat | None, ...]:
        environment = execution.context.environment
        return tuple([await environment.stat(path) for path in sorted(execution.paths)])
