"""Runs one call on a copy of the workspace, so that the user can approve its effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from agentcli.environments.base import WorkspaceCopy
from agentcli.errors import AgentCLIError, SandboxError
from agentcli.messages import Outcome
from agentcli.tools.base import ToolContext, ToolOutput


class CopyTrial:
    """See ``approval.Trial``. Once committed, ``answer`` is the result of the call.

    ``work`` executes the call in a given context. Use it as an async context manager: the copy is
    removed at the end, committed or not.
    """

    def __init__(
        self, work: Callable[[ToolContext], Awaitable[ToolOutput]], context: ToolContext
    ) -> None:
        self.answer: ToolOutput | None = None
        self._work = work
        self._context = context
        self._seen = context.seen.copy()
        self._stack = AsyncExitStack()
        self._copy: WorkspaceCopy | None = None
        self._output = ToolOutput("")

    async def __aenter__(self) -> CopyTrial:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def run(self) -> tuple[str, str]:
        """See ``approval.Trial.run``."""
        if self._context.copies is None:
            raise SandboxError("this environment cannot be copied")
        try:
            copy = await self._stack.enter_async_context(self._context.copies())
        except OSError as error:
            raise SandboxError(f"the workspace cannot be copied: {error}") from error
        try:
            context = replace(
                self._context, environment=copy, copies=None, jobs=None, seen=self._seen
            )
            self._output = await self._work(context)
        except AgentCLIError as error:
            self._output = ToolOutput(f"error: {error.line()}", Outcome.ERROR)
        effect = await copy.effect()
        paths = tuple(dict.fromkeys((*self._output.paths, *effect.paths)))
        self._output = replace(self._output, diff=effect.diff, paths=paths)
        self._copy = copy
        return effect.diff, self._output.content

    async def commit(self) -> None:
        """See ``approval.Trial.commit``."""
        assert self._copy is not None
        async with self._context.changing():
            await self._copy.commit()
        self._context.seen.take(self._seen)
        self.answer = self._output
