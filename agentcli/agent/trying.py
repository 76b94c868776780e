"""Trials: a copy of the workspace on which edits are tried, and the check's result before any.

Opening one takes a second or more, mostly for starting the tests, so it can be opened in the
background while the model is still reading (``PendingTrial``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import TracebackType

from agentcli.agent.edit_calls import EditCalls, is_guarded
from agentcli.agent.places import likely_places
from agentcli.agent.programs import breaks, mentioned, program
from agentcli.environments.base import Environment, LinesRun, TracesLines
from agentcli.errors import EnvironmentOpError
from agentcli.llm.client import EditPlace
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import FAILED, NARROWER, ToolContext
from agentcli.tools.registry import Registry

_log = logging.getLogger(__name__)

SPARE_S, SLOWER = 3.0, 2.0
"""Time limit of a try: ``SPARE_S`` seconds plus ``SLOWER`` times the check's time without edits."""

UNCOUNTED = 1_000_000
"""The count of failing tests if an error keeps all of them from running."""

Copies = Callable[[], AbstractAsyncContextManager[Environment]]


@dataclass(frozen=True)
class Trial:
    """An open trial. ``failed`` tests fail without an edit; ``narrow`` checks only these."""

    check: ToolCall
    failed: int | None
    narrow: ToolCall
    places: list[EditPlace]
    tools: Registry
    context: ToolContext
    mentions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The names that each file uses which ran in the check."""
    made: dict[str, Mapping[str, bytes | None]] = field(default_factory=dict)
    """The files as each edit made them, by its arguments."""
    _tried: set[frozenset[tuple[str, str]]] = field(default_factory=set)  # (path, program)

    async def left(self, call: ToolCall) -> int | None:
        """Try an edit and undo it; return how many tests fail after it, or None if not known.

        The narrow check alone decides that an edit helps nothing; what it leaves is counted by the
        whole one, as an edit that mends one test may break another.

        Raises:
            RefusedError: the edit could not be made.
            NoTryError: its result is known without running it: it breaks a file, or leaves the
                program as it is or as an earlier edit made it.
        """
        copy = self.context.environment
        paths = EditCalls(self.tools).paths(call)
        before = {path: await read(copy, path) for path in paths}
        absent = {path for path in paths if await copy.stat(path) is None}
        # The copy forgets each edit, and so must what is known of its files.
        context = replace(self.context, seen=self.context.seen.copy())
        edit = await self.tools.dispatch(call, context)
        if edit.outcome is not Outcome.OK:
            raise RefusedError(edit.content)
        try:
            after = {path: await read(copy, path) for path in paths}
            self.made[call.arguments] = after
            if not self._is_worth_a_run(before, after):
                raise NoTryError
            left = failures(await self.tools.dispatch(self.narrow, self.context))
            helps = left is not None and left < (self.failed or 0)
            if helps and self.narrow != self.check:
                left = failures(await self.tools.dispatch(self.check, self.context))
        finally:
            for path, data in before.items():
                if data is not None:
                    await copy.write(path, data)
                elif path in absent and await copy.stat(path):
                    await copy.remove(path)
        return left

    def _is_worth_a_run(self, *contents: Mapping[str, bytes | None]) -> bool:
        """Whether the program after an edit is not broken, and another one than those before."""
        before, after = (
            {path: _text(data) for path, data in files.items() if data is not None}
            for files in contents
        )
        for path, text in before.items():
            elsewhere = frozenset().union(*(self.mentions[p] for p in self.mentions if p != path))
            if breaks(path, text, after.get(path, text), elsewhere):
                return False
        old, new = (
            frozenset((path, program(path, text)) for path, text in files.items())
            for files in (before, after)
        )
        if new and (new == old or new in self._tried):
            return False
        self._tried.add(new)
        return True


class NoTryError(Exception):
    """The edit is not worth trying."""


class RefusedError(Exception):
    """The edit could not be made on the copy, and so not in the workspace either."""


@asynccontextmanager
async def trial(
    tools: Registry, context: ToolContext, copies: Copies, check: ToolCall, failed: int | None
) -> AsyncIterator[Trial]:
    """Open a copy and run ``check`` on it, tracing which lines run.

    ``failed`` is the number of tests that failed in the last run of the check, if there was one.
    """
    async with copies() as copy:
        context = replace(context, environment=copy, copies=None, on_copy=True, found_commands={})
        with copy.tracing() if isinstance(copy, TracesLines) else nullcontext(LinesRun()) as lines:
            started = time.monotonic()
            result = await tools.dispatch(check, context)
        # An edit can make the tests loop forever. The first run is slower, as it traces lines.
        bound_s = min(context.check.time_s, SPARE_S + SLOWER * (time.monotonic() - started))
        # Asked once, the user need not approve each try; without a sandbox, what an edit makes the
        # tests do may reach beyond the copy.
        free = result.outcome is not Outcome.DENIED and copy.level != "none"
        approved = frozenset([check.name] if free else [])
        bounds = replace(context.check, time_s=bound_s)
        context = replace(context, check=bounds, approved=approved)
        now = failures(result)
        # An error that keeps all tests from running gives no count, but is a failure.
        if now is None and result.outcome is Outcome.FAILED:
            now = failed or UNCOUNTED
        narrow = check
        if isinstance(more := result.data.get(NARROWER), dict):
            arguments = json.dumps({**json.loads(check.arguments or "{}"), **more})
            narrow = replace(check, arguments=arguments)
        texts: dict[str, str] = {}
        for path in lines.ran:
            if (data := await read(copy, path)) is not None:
                texts[path] = _text(data)
        mentions = {path: mentioned(path, text) for path, text in texts.items()}
        own = {path: text for path, text in texts.items() if not is_guarded(path)}
        places = likely_places(lines, own)
        yield Trial(check, now, narrow, places, tools, context, mentions)


class PendingTrial:
    """A trial that a background task is opening; entering it waits until it is open.

    ``aclose`` discards one that nobody entered.
    """

    def __init__(self, opened: AbstractAsyncContextManager[Trial]) -> None:
        self._ready: asyncio.Future[Trial] = asyncio.get_running_loop().create_future()
        self._left = asyncio.Event()
        self._task = asyncio.create_task(self._hold(opened))

    async def _hold(self, opened: AbstractAsyncContextManager[Trial]) -> None:
        try:
            async with opened as value:
                if not self._ready.done():
                    self._ready.set_result(value)
                await self._left.wait()
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def __aenter__(self) -> Trial:
        try:
            return await asyncio.shield(self._ready)
        except BaseException:
            await self.aclose()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        await self._task

    async def aclose(self) -> None:
        """Close it, whether it is open yet or not. Its errors are only logged."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for future in (self._task, self._ready):
            if future.done() and not future.cancelled() and (error := future.exception()):
                _log.warning("opening or closing an unused copy failed", exc_info=error)


async def read(environment: Environment, path: str) -> bytes | None:
    """The file's bytes; None if it cannot be read."""
    try:
        return await environment.read(path)
    except EnvironmentOpError:
        return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def failures(result: ToolResult) -> int | None:
    """How many tests failed: 0 for a check that passed, None if not known."""
    if result.outcome is Outcome.OK:
        return 0
    failed = result.data.get(FAILED)
    return failed if isinstance(failed, int) and failed > 0 else None
