"""Search with verification: several edits are tried on a copy, and the first that passes is kept.

When the last check failed, or none was made yet and there is one that fails, and the model answers
with an edit: that edit and others that it proposes, the likeliest first, are each made on a copy of
the workspace, where the check runs again. An edit that passes becomes the model's answer, unless
one of the next few passes too and changes less; where none does, one after which fewer tests fail.
The others leave no trace in the workspace.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace

from agentcli.agent.edit_calls import SMALLEST, EditCalls
from agentcli.agent.events import AnswerRejected, CandidateTried, Event, StopReason
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stopped, stop_for
from agentcli.agent.trying import UNCOUNTED, Ahead, Copies, NoTryError, Trial, failures, read, trial
from agentcli.llm.client import ChatRequest, ChatResponse, EditPlace, LLMClient, Proposes
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import Registry

PATIENCE = 18
"""Edits that are tried on for the right one, once there is one after which fewer tests fail."""

LOOK_ON = 6
"""Edits that are looked at for a smaller one, once one has passed."""

TRIES = 30


@dataclass(frozen=True)
class _Kept:
    """The best edit so far: how many tests fail after it, and how many tokens it changes."""

    left: int
    size: int
    answer: ChatResponse


@dataclass
class Search:
    """``copies`` opens a copy of the workspace; ``tries`` bounds a whole run."""

    tools: Registry
    context: ToolContext
    copies: Copies
    emit: Callable[[Event], Awaitable[None]]
    tries: int = TRIES
    _before: dict[str, bytes] = field(default_factory=dict)
    _unsolved: bool = False  # an edit was kept after which tests still fail
    _ahead: tuple[list[ToolKind], Ahead] | None = None
    _edits: EditCalls = field(init=False)

    def __post_init__(self) -> None:
        self._edits = EditCalls(self.tools)

    async def end(self) -> None:
        """The run is over; the next one has all its tries again."""
        self.tries = TRIES
        self._before.clear()
        self._unsolved = False
        await self._forget_ahead()

    async def better(
        self,
        client: LLMClient,
        request: ChatRequest,
        step: int,
        state: AgentState,
        response: ChatResponse,
    ) -> ChatResponse:
        """The answer to go on with: ``response`` itself unless an edit is to be tried.

        Raises:
            Stopped: all tries are used up; the workspace is as it was before the first edit.
        """
        if not isinstance(client, Proposes):
            return response
        # An edit is to be tried; nor is it the end where one was kept and tests still fail.
        ends = self._unsolved and not response.message.calls
        check, failed = self._last_check(state)
        if not (ends or self._edits.of(response)):
            if check is not None and failed and self._reads(response, state):
                await self._look_ahead(state, check, failed)
            return response
        # Between the edits of a renaming tests fail, which passed before the first of them.
        begun = failed is None and ToolKind.EDIT in self._changes(state) and not self._before
        if check is None or failed == 0 or begun:
            return response
        best: _Kept | None = None
        tried: set[str] = set()
        after = 0  # looked at since one has passed
        spent = response.usage
        async with await self._trial(state, check, failed) as on:
            if not on.failed:
                return response
            candidates = self._candidates(client, request, response, on.places)
            async with aclosing(candidates):
                async for candidate in candidates:
                    if candidate is not response:
                        spent += candidate.usage
                    call = self._edits.of(candidate)
                    if call is None or call.arguments in tried or self._edits.is_guarded(call):
                        continue
                    if self.tries <= 0 or (best is not None and len(tried) >= PATIENCE):
                        break
                    size = self._edits.size(call)
                    if best is not None and not best.left:
                        after += 1
                        if after > LOOK_ON:
                            break
                        if size >= best.size:
                            continue
                    tried.add(call.arguments)
                    left = await self._try(on, step, call)
                    if left == 0 or (
                        left is not None and left < (best.left if best else on.failed)
                    ):
                        best = _Kept(left, size, candidate)
                    if best is not None and not best.left and best.size <= SMALLEST:
                        break
        if best is None:
            await self._restore()
            problem = f"none of {len(tried)} edits made the tests pass"
            await self.emit(AnswerRejected(step, problem, spent, 0.0))  # it has been paid for
            detail = f"{problem}; nothing was changed"
            raise Stopped(stop_for(StopReason.TRIES_USED_UP, detail=detail))
        await self._remember(best.answer)
        self._unsolved = best.left > 0
        return replace(best.answer, usage=spent)

    async def _look_ahead(self, state: AgentState, check: ToolCall, failed: int) -> None:
        """Begin the trial that an edit will need while the model reads on."""
        changes = self._changes(state)
        if self._ahead is None or self._ahead[0] != changes:
            await self._forget_ahead()
            self._ahead = changes, Ahead(self._opened(check, failed))

    async def _trial(
        self, state: AgentState, check: ToolCall, failed: int | None
    ) -> AbstractAsyncContextManager[Trial]:
        """The one that was begun, unless the workspace may have changed since; or a new one."""
        if self._ahead is not None and self._ahead[0] == self._changes(state):
            (_, begun), self._ahead = self._ahead, None
            return begun
        await self._forget_ahead()
        return self._opened(check, failed)

    def _opened(self, check: ToolCall, failed: int | None) -> AbstractAsyncContextManager[Trial]:
        return trial(self.tools, self.context, self.copies, check, failed)

    async def _forget_ahead(self) -> None:
        if self._ahead is not None:
            (_, begun), self._ahead = self._ahead, None
            await begun.aclose()

    def _reads(self, response: ChatResponse, state: AgentState) -> bool:
        """Whether it looks at something, and nothing has changed since the last check."""
        calls = response.message.calls
        if not calls or any(self._kind(call.name).changes_files for call in calls):
            return False
        return self._changes(state)[-1:] == [ToolKind.CHECK]

    def _changes(self, state: AgentState) -> list[ToolKind]:
        """The calls so far that may have changed the workspace, by kind."""
        parts = [part for said in state.history for part in said.parts]
        kinds = [self._kind(part.name) for part in parts if isinstance(part, ToolResult)]
        return [kind for kind in kinds if kind.changes_files]

    def _kind(self, tool: str) -> ToolKind:
        spec = self.tools.spec(tool)
        return ToolKind.RUN if spec is None else spec.kind

    async def _candidates(
        self,
        client: Proposes,
        request: ChatRequest,
        first: ChatResponse,
        places: Sequence[EditPlace],
    ) -> AsyncGenerator[ChatResponse, None]:
        """The model's own answer, then others of edits alone."""
        yield first
        edits = tuple(
            tool
            for tool in request.tools
            if (spec := self.tools.spec(tool.name)) and spec.kind is ToolKind.EDIT
        )
        # Different tokens may say the same, so that more are asked for than are tried.
        proposals = client.propose(replace(request, tools=edits), 4 * self.tries, places)
        async with aclosing(proposals) as others:  # type: ignore[type-var]
            async for proposal in others:
                yield proposal

    async def _try(self, on: Trial, step: int, call: ToolCall) -> int | None:
        """How many tests fail after the edit; None where that is not known."""
        started = time.monotonic()
        try:
            left = await on.left(call)
        except NoTryError:
            return None
        self.tries -= 1
        await self.emit(CandidateTried(step, call, left, time.monotonic() - started))
        return left

    def _last_check(self, state: AgentState) -> tuple[ToolCall | None, int | None]:
        """The last check and how many tests it said fail.

        Where none was made yet: the one there is, and None. Where it is of no use: None and None.
        """
        calls = {call.id: call for message in state.history for call in message.calls}
        for message in reversed(tuple(state.history)):
            for part in message.parts:
                if not isinstance(part, ToolResult) or part.call_id not in calls:
                    continue
                spec = self.tools.spec(part.name)
                if spec is not None and spec.kind is ToolKind.CHECK:
                    call, left = calls[part.call_id], failures(part)
                    broken = left is None and part.outcome is Outcome.FAILED
                    return call, UNCOUNTED if broken else left or 0
        checks = [spec for spec in self.tools.specs if spec.kind is ToolKind.CHECK]
        if len(checks) != 1 or checks[0].parameters.get("required"):
            return None, None
        return ToolCall("search", checks[0].name), None

    async def _remember(self, response: ChatResponse) -> None:
        call = self._edits.of(response)
        for path in self._edits.paths(call) if call else ():
            data = await read(self.context.environment, path)
            if data is not None:
                self._before.setdefault(path, data)

    async def _restore(self) -> None:
        for path, data in self._before.items():
            await self.context.environment.write(path, data)
        self._before.clear()
