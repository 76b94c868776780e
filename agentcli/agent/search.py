"""Search with verification: tries several edits on a copy and keeps the first that passes.

It applies when the model answers with an edit and the last check failed, or none ran yet and one
fails. That edit and others that the model proposes, the most likely first, are each made on a copy
of the workspace, where the check runs again. The first edit that passes becomes the model's answer,
unless one of the next few also passes and changes less; if none passes, the answer is one that
leaves fewer failing tests. The others leave no trace in the workspace.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace

from agentcli.agent.edit_calls import SMALLEST, EditCalls, is_guarded
from agentcli.agent.events import AnswerRejected, CandidateTried, Event, StopReason
from agentcli.agent.places import likely_places
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stopped, stop_for
from agentcli.environments.base import Environment, LinesRun, TracesLines
from agentcli.errors import EnvironmentOpError
from agentcli.llm.client import ChatRequest, ChatResponse, EditPlace, LLMClient, Proposes
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import BROKEN, FAILED, NARROWER, ToolContext, ToolKind
from agentcli.tools.registry import Registry

PATIENCE = 12
"""Edits that are tried on for the right one, once there is one after which fewer tests fail."""

LOOK_ON = 6
"""Edits that are looked at for a smaller one, once one has passed."""

SPARE_S, SLOWER = 3.0, 2.0
"""A try may take so many seconds, and so many times what the check took before all tries."""

_MANY = 1_000_000  # more than fail where tests run at all


@dataclass(frozen=True)
class _Kept:
    """The best edit so far: how many tests fail after it, and how many tokens it changes."""

    left: int
    size: int
    answer: ChatResponse


Copies = Callable[[], AbstractAsyncContextManager[Environment]]


@dataclass
class Search:
    """``copies`` opens a copy of the workspace; ``tries`` bounds a whole run."""

    tools: Registry
    context: ToolContext
    copies: Copies
    emit: Callable[[Event], Awaitable[None]]
    tries: int = 30
    _before: dict[str, bytes] = field(default_factory=dict)
    _context: ToolContext = field(init=False)
    _edits: EditCalls = field(init=False)

    def __post_init__(self) -> None:
        self._edits = EditCalls(self.tools)

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
        # An edit is to be tried; nor is it the end where one was made and tests still fail.
        ends = bool(self._before) and not response.message.calls
        if not isinstance(client, Proposes) or not (ends or self._edits.of(response)):
            return response
        check, failed = self._last_check(state)
        if check is None or failed == 0:
            return response
        best: _Kept | None = None
        tried: set[str] = set()
        after = 0  # looked at since one has passed
        spent = response.usage
        async with self.copies() as copy:
            failed, narrow, places = await self._look(copy, check, failed)
            if not failed:
                return response
            async with aclosing(self._candidates(client, request, response, places)) as candidates:
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
                    left = await self._try(copy, step, call, narrow, check)
                    if left == 0 or (left is not None and left < (best.left if best else failed)):
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
        return replace(best.answer, usage=spent)

    async def _look(
        self, copy: Environment, check: ToolCall, failed: int | None
    ) -> tuple[int | None, ToolCall, list[EditPlace]]:
        """How many tests fail, the check of these alone, and where the fault may be."""
        self._context = replace(
            self.context, environment=copy, copies=None, on_copy=True, found_commands={}
        )
        context = self._context
        with copy.tracing() if isinstance(copy, TracesLines) else nullcontext(LinesRun()) as lines:
            started = time.monotonic()
            result = await self.tools.dispatch(check, context)
        # An edit may make the tests loop for ever; the first run has had lines to look at, too.
        bound_s = min(context.check.time_s, SPARE_S + SLOWER * (time.monotonic() - started))
        self._context = replace(context, check=replace(context.check, time_s=bound_s))
        now = _failures(result)
        # An error that keeps all tests from running is no count, but a fault.
        if now is None and result.outcome is Outcome.FAILED:
            now = failed or _MANY
        narrow = check
        if isinstance(more := result.data.get(NARROWER), dict):
            arguments = json.dumps({**json.loads(check.arguments or "{}"), **more})
            narrow = replace(check, arguments=arguments)
        texts: dict[str, str] = {}
        for path in lines.ran:
            data = None if is_guarded(path) else await _read(copy, path)
            if data is not None:
                texts[path] = data.decode("utf-8", "replace").replace("\r\n", "\n")
        return now, narrow, likely_places(lines, texts)

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

    async def _try(
        self, copy: Environment, step: int, call: ToolCall, narrow: ToolCall, check: ToolCall
    ) -> int | None:
        """How many tests fail after the edit; None where that is not known. Undoes the edit.

        ``narrow`` checks what failed alone; what passes it has to pass the whole check.
        """
        started = time.monotonic()
        context = self._context
        paths = self._edits.paths(call)
        before = {path: await _read(copy, path) for path in paths}
        edit = await self.tools.dispatch(call, context)
        if edit.outcome is not Outcome.OK:
            return None  # it changed nothing: that is no try, nor is what cannot be parsed
        left = None
        if not edit.data.get(BROKEN):
            self.tries -= 1
            left = _failures(await self.tools.dispatch(narrow, context))
            if left == 0 and narrow != check:
                left = _failures(await self.tools.dispatch(check, context))
            await self.emit(CandidateTried(step, call, left, time.monotonic() - started))
        for path, data in before.items():
            if data is not None:
                await copy.write(path, data)
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
                    call, left = calls[part.call_id], _failures(part)
                    broken = left is None and part.outcome is Outcome.FAILED
                    return call, _MANY if broken else left or 0
        checks = [spec for spec in self.tools.specs if spec.kind is ToolKind.CHECK]
        if len(checks) != 1 or checks[0].parameters.get("required"):
            return None, None
        return ToolCall("search", checks[0].name), None

    async def _remember(self, response: ChatResponse) -> None:
        call = self._edits.of(response)
        for path in self._edits.paths(call) if call else ():
            data = await _read(self.context.environment, path)
            if data is not None:
                self._before.setdefault(path, data)

    async def _restore(self) -> None:
        for path, data in self._before.items():
            await self.context.environment.write(path, data)
        self._before.clear()


async def _read(environment: Environment, path: str) -> bytes | None:
    try:
        return await environment.read(path)
    except EnvironmentOpError:
        return None


def _failures(result: ToolResult) -> int | None:
    """0 for a check that passed; None where it is not known how many tests failed."""
    if result.outcome is Outcome.OK:
        return 0
    failed = result.data.get(FAILED)
    return failed if isinstance(failed, int) and failed > 0 else None
