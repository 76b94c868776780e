"""Search with verification: tries several edits on a copy of the workspace and keeps the best.

A search starts when the model answers with an edit while a check fails. That edit and others that
the model proposes, the likeliest first, are each applied to the copy, where the check runs again.
The first edit that passes becomes the model's answer, unless one of the next few passes too and
changes less. If none passes, one that leaves fewer tests failing is kept. The rejected edits never
touch the workspace.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import NoReturn

from agentcli.agent.called import Called, since_asked
from agentcli.agent.edit_calls import SMALLEST, EditCalls
from agentcli.agent.events import AnswerRejected, CandidateTried, Event, StopReason, Warned
from agentcli.agent.renames import asked_for
from agentcli.agent.run_edits import RunEdits
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stopped, stop_for
from agentcli.agent.trying import (
    Copies,
    NoTryError,
    PendingTrial,
    RefusedError,
    Trial,
    failures,
    trial,
)
from agentcli.errors import ProviderError
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    EditPlace,
    LLMClient,
    ModelInfo,
    Proposes,
)
from agentcli.messages import Outcome, ToolCall, ToolResult, Usage
from agentcli.tools.base import DECLINE, ToolContext, ToolKind
from agentcli.tools.registry import Registry

REFUSALS = 3
"""A search ends if so many edits, and no others, could not be made, as in a read-only file."""

PATIENCE = 18
"""Once an edit leaves fewer tests failing, no more than this many edits are tried."""

LOOK_ON = 6
"""Once an edit has passed, this many more are considered in search of a smaller one."""

TRIES = 30
"""Edits tried in one run."""


@dataclass(frozen=True)
class _Kept:
    """The best edit so far: how many tests fail after it, and how many tokens it changes."""

    left: int
    size: int
    answer: ChatResponse


@dataclass
class Search:
    """Searches for edits in one run after another. ``copies`` opens a copy of the workspace."""

    tools: Registry
    context: ToolContext
    copies: Copies
    emit: Callable[[Event], Awaitable[None]]
    _tries_left: int = field(default=TRIES, init=False)
    _unsolved: bool = field(default=False, init=False)  # tests still fail after the kept edit
    _pending: tuple[list[ToolKind], PendingTrial] | None = field(default=None, init=False)
    _edits: EditCalls = field(init=False)
    _called: Called = field(init=False)
    _made: RunEdits = field(init=False)

    def __post_init__(self) -> None:
        self._edits = EditCalls(self.tools)
        self._called = Called(self.tools)
        self._made = RunEdits(self.context.environment, self._edits)

    async def end(self) -> None:
        """End the run: reset the tries and drop what belongs to it."""
        self._tries_left = TRIES
        self._made.clear()
        self._unsolved = False
        await self._discard_pending()

    async def better(
        self,
        client: LLMClient,
        request: ChatRequest,
        step: int,
        state: AgentState,
        response: ChatResponse,
    ) -> ChatResponse:
        """The best answer found by a search; ``response`` itself if there is nothing to search for.

        Raises:
            Stopped: no edit helped, and the workspace is as it was before the run's first edit; or
                the edit that a search had found was not made; or it is a final answer although the
                last check gave nothing to base it on.
        """
        if not isinstance(client, Proposes):
            return response
        results = self._called.results(since_asked(state.history), ToolKind.EDIT)
        await self._made.note(reversed(list(results)))
        claims = self._claims(client.info, response, state)
        better = await self._searched(client, request, step, state, response, claims=claims)
        if better is response:
            for call in response.message.calls:
                if self._called.kind(call.name) is ToolKind.EDIT:
                    await self._made.announce(call)
        return better

    async def _searched(
        self,
        client: Proposes,
        request: ChatRequest,
        step: int,
        state: AgentState,
        response: ChatResponse,
        *,
        claims: bool,
    ) -> ChatResponse:
        if problem := self._refused(state):
            await self.emit(AnswerRejected(step, "the edit was not made", response.usage, 0.0))
            raise Stopped(stop_for(StopReason.DECLINED, detail=problem))
        if not response.message.calls and (problem := self._unknown(state)):
            await self.emit(AnswerRejected(step, problem, response.usage, 0.0))
            raise Stopped(stop_for(StopReason.DECLINED, detail=problem))
        # A final answer starts a search too, if tests still fail after the kept edit, or if it
        # tells of an edit that was not made.
        ends = claims or (self._unsolved and not response.message.calls)
        check, failed = self._called.last_check(state.history)
        checked = any(self._called.results(since_asked(state.history), ToolKind.CHECK))
        if claims and not (failed and checked):
            await self._disown(step, response)
        if not checked and self._is_asked_rename(response, state):
            return response  # whatever the tests say
        if not (ends or self._edits.of(response)):
            if check is not None and failed and self._reads(response, state):
                await self._prepare_trial(state, check, failed)
            return response
        changed = self._called.changing(state.history)
        # In the middle of a multi-file rename, tests fail that passed before its first edit.
        begun = failed is None and ToolKind.EDIT in changed and not self._made.any_found
        if check is None or failed == 0 or begun:
            return response
        async with await self._trial(state, check, failed) as on:
            if not on.failed:
                if claims:
                    await self._disown(step, response)
                return response
            best, problem, spent = await self._best_edit(client, request, step, response, on)
        if best is None:
            await self.emit(AnswerRejected(step, "the tests still fail", spent, 0.0))  # it counts
            earlier = self._earlier(state)
            left = await self._made.undo()
            stays = [f"{path} changed meanwhile and was left as it is" for path in left]
            stays += [f"an earlier edit of {path} stays" for path in earlier if path not in left]
            now = ", ".join(stays) + ": see git diff" if stays else "nothing was changed"
            detail = f"{problem}; {now}"
            raise Stopped(stop_for(StopReason.TRIES_USED_UP, detail=detail))
        if (edit := self._edits.of(best.answer)) is not None:
            await self._made.find(edit, on.made[edit.arguments])
        self._unsolved = best.left > 0
        return replace(best.answer, usage=spent)

    async def _best_edit(
        self, client: Proposes, request: ChatRequest, step: int, first: ChatResponse, on: Trial
    ) -> tuple[_Kept | None, str, Usage]:
        """Try edits, among them ``first``.

        Return the best one (None if none helped), why none did, and the tokens they took.
        """
        best: _Kept | None = None
        fewest = on.failed or 0  # failing tests to undercut
        seen: set[str] = set()
        refused = tried = 0
        after = 0  # candidates considered since one has passed
        spent = first.usage
        async with aclosing(self._candidates(client, request, first, on.places)) as candidates:
            async for candidate in candidates:
                if candidate is not first:
                    spent += candidate.usage
                call = self._edits.of(candidate)
                if call is None or call.arguments in seen or self._edits.is_guarded(call):
                    continue
                if self._tries_left <= 0 or (best is not None and tried >= PATIENCE):
                    break
                size = self._edits.size(call)
                if best is not None and not best.left:
                    after += 1
                    if after > LOOK_ON:
                        break
                    if size >= best.size:
                        continue
                seen.add(call.arguments)
                try:
                    left = await self._try(on, step, call)
                except NoTryError:
                    continue
                except RefusedError as error:
                    refused += 1
                    if refused >= REFUSALS and not tried:
                        why = str(error).removeprefix("error: ")
                        return None, f"no edit could be made: {why}", spent
                    continue
                tried += 1
                if left is not None and (left == 0 or left < fewest):
                    best, fewest = _Kept(left, size, candidate), left
                if best is not None and not best.left and best.size <= SMALLEST:
                    break
        problem = (
            f"none of {tried} edits made the tests pass" if tried else "no edit was left to try"
        )
        return best, problem, spent

    async def _prepare_trial(self, state: AgentState, check: ToolCall, failed: int) -> None:
        """Start to open the trial that an edit will need, while the model still reads."""
        changes = self._called.changing(state.history)
        if self._pending is None or self._pending[0] != changes:
            await self._discard_pending()
            self._pending = changes, PendingTrial(self._open_trial(check, failed))

    async def _trial(
        self, state: AgentState, check: ToolCall, failed: int | None
    ) -> AbstractAsyncContextManager[Trial]:
        """The pending trial, unless the workspace may have changed since; otherwise a new one."""
        if self._pending is not None and self._pending[0] == self._called.changing(state.history):
            (_, pending), self._pending = self._pending, None
            return pending
        await self._discard_pending()
        return self._open_trial(check, failed)

    def _open_trial(
        self, check: ToolCall, failed: int | None
    ) -> AbstractAsyncContextManager[Trial]:
        return trial(self.tools, self.context, self.copies, check, failed)

    async def _discard_pending(self) -> None:
        if self._pending is not None:
            (_, pending), self._pending = self._pending, None
            await pending.aclose()

    def _reads(self, response: ChatResponse, state: AgentState) -> bool:
        """Whether the answer only reads, and nothing has changed since the last check."""
        calls = response.message.calls
        if not calls or any(self._called.kind(call.name).changes_files for call in calls):
            return False
        return self._called.changing(state.history)[-1:] == [ToolKind.CHECK]

    async def _candidates(
        self,
        client: Proposes,
        request: ChatRequest,
        first: ChatResponse,
        places: Sequence[EditPlace],
    ) -> AsyncGenerator[ChatResponse, None]:
        """Yield edits that the model proposes; its own answer, decoded greedily, comes second.

        The proposals are ranked with the help of ``places``, so their first one is right more often
        (5 instead of 3 of 15 held-out repairs); the answer is mostly among them, too.
        """
        edits = tuple(
            tool
            for tool in request.tools
            if (spec := self.tools.spec(tool.name)) and spec.kind is ToolKind.EDIT
        )
        if self._tries_left <= 0:
            return
        # Many proposals are not worth a try, so ask for more than can be tried.
        proposals = client.propose(replace(request, tools=edits), 8 * self._tries_left, places)
        async with aclosing(proposals) as others:  # type: ignore[type-var]
            given = False
            try:
                async for proposal in others:
                    yield proposal
                    if not given:
                        given = True
                        yield first
            except ProviderError as error:  # what it has proposed may be enough
                await self.emit(Warned(f"no more edits are proposed: {error.line()}"))
            if not given:
                yield first

    async def _try(self, on: Trial, step: int, call: ToolCall) -> int | None:
        """How many tests fail after the edit; None if that is not known. See ``Trial.left``."""
        started = time.monotonic()
        left = await on.left(call)
        self._tries_left -= 1
        await self.emit(CandidateTried(step, call, left, time.monotonic() - started))
        return left

    def _unknown(self, state: AgentState) -> str | None:
        """Why nothing can be said about the tests after the last check; None if something can.

        Only for a model that may decline: it was trained on results that name the failing tests,
        and makes up what others mean. Checks before the user's last message do not count.
        """
        if self.tools.spec(DECLINE) is None:
            return None
        since = since_asked(state.history)
        _, result = next(self._called.results(since, ToolKind.CHECK), (None, None))
        if result is None:
            return None
        if result.outcome is Outcome.DENIED:
            return f"{_not_permitted(result)}, so the tests are unknown"
        if result.outcome is Outcome.FAILED and failures(result) is None:
            first = result.content.partition("\n")[0]
            return f"{first}: which tests fail is unknown"
        return None

    def _is_asked_rename(self, response: ChatResponse, state: AgentState) -> bool:
        """Whether it is an edit that exchanges one name of the user's message for another."""
        edit = self._edits.of(response)
        spec = self.tools.spec(edit.name) if edit is not None else None
        message = since_asked(state.history)[0].text
        lines = spec.variant_of.items() if spec is not None else ()
        if edit is None or not lines:
            return False
        return all(asked_for(edit, old, new, message) for new, old in lines)

    def _claims(self, info: ModelInfo, response: ChatResponse, state: AgentState) -> bool:
        """Whether a final answer tells of an edit although the session has made none.

        It may be about an edit of an earlier turn, or the user may have said something since.
        """
        if response.message.calls or not response.message.text.startswith(info.edit_claims):
            return False
        edits = self._called.results(state.history, ToolKind.EDIT)
        return all(result.outcome is not Outcome.OK for _, result in edits)

    async def _disown(self, step: int, response: ChatResponse) -> NoReturn:
        """End the run instead of giving an answer that tells of an edit which was not made."""
        problem = "the model's answer tells of an edit that was not made"
        await self.emit(AnswerRejected(step, problem, response.usage, 0.0))
        raise Stopped(stop_for(StopReason.DECLINED, detail=f"{problem}; nothing was changed"))

    def _refused(self, state: AgentState) -> str | None:
        """Why the edit that the last search found was not made; None if it was.

        Another search would only find it again.
        """
        since = since_asked(state.history)
        call, last = next(self._called.results(since, ToolKind.EDIT), (None, None))
        if last is None or last.outcome is Outcome.OK or not self._made.is_found(call):
            return None
        if last.outcome is Outcome.DENIED:
            return _not_permitted(last)
        return f"the edit could not be made: {last.content.removeprefix('error: ')}"

    def _earlier(self, state: AgentState) -> list[str]:
        """The files that were edited since the user's last message and that stay so.

        They were edited in a run that was interrupted, or were changed again by something else.
        """
        results = self._called.results(since_asked(state.history), ToolKind.EDIT)
        made = [
            result
            for call, result in results
            if result.outcome is Outcome.OK and not self._made.is_known(call)
        ]
        return sorted({path for result in made for path in result.paths})


def _not_permitted(result: ToolResult) -> str:
    first = result.content.partition("\n")[0].removeprefix("denied: ")
    return f"{result.name} was not permitted ({first})"
