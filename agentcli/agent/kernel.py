"""The kernel: a step is observe, decide, act, reduce, critic, check_stop; a run is steps.

The kernel works in a task of its own. Everything that happens is an event: recorded in the log
first, then folded into the state, then shown to hooks and to the run's reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentcli.agent.acting import Acting, interrupted
from agentcli.agent.asking import Answer, Asking
from agentcli.agent.budget import Price, RunLimits, used_up
from agentcli.agent.critics import Critic, Judgement, Review, review_all
from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    CheckStarted,
    Event,
    EventLog,
    MessageAdded,
    ModelAnswered,
    ModelChanged,
    PhaseChanged,
    RunFinished,
    SessionStarted,
    Stage,
    StageStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    Warned,
)
from agentcli.agent.hooks import Allow, Deny, Hook
from agentcli.agent.module import Act, AgentModule, CodingAgent, Decision, Final, Wait
from agentcli.agent.phase import phase_of
from agentcli.agent.recovery import TOOL_RETRIES, RetryConfig
from agentcli.agent.run import Run, RunResult
from agentcli.agent.search import Copies, Search
from agentcli.agent.stagnation import REPEATS, stagnant
from agentcli.agent.state import AgentState, exit_code, fold
from agentcli.agent.stop import Stop, Stopped, stop_by, stop_for
from agentcli.errors import (
    AgentCLIError,
    CapabilityError,
    ContentFilterError,
    InternalError,
    JournalError,
    Place,
    ProviderError,
    SandboxError,
)
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, ModelInfo, Sampling
from agentcli.messages import (
    FinishReason,
    Message,
    Outcome,
    ToolCall,
    ToolResult,
    Usage,
    system,
    user,
    without_thinking,
)
from agentcli.tools.base import STOP, ToolContext, ToolKind, ToolOutput
from agentcli.tools.permissions import Mode
from agentcli.tools.registry import Registry

PLAN = Mode.PLAN.value

Check = Callable[[ToolContext, str], Awaitable[ToolOutput]]

_log = logging.getLogger("agentcli.kernel")


def _unpriced(info: ModelInfo) -> Price:
    def unknown(usage: Usage) -> None:
        return None

    return unknown


async def _unchecked(context: ToolContext, command: str) -> ToolOutput:
    raise InternalError(f"nothing is there to run the check {command!r}")


@dataclass
class Agent:
    """A model, tools and a workspace, ready to work on tasks.

    ``session`` is what the journal opens with; ``state`` is where a resumed session stands;
    ``fallbacks`` make the clients to go on with, in this order, when a model fails for good;
    ``price_of`` gives a model's prices, and may take a while; ``check`` runs a check of a task.
    """

    client: LLMClient
    tools: Registry
    context: ToolContext
    log: EventLog
    session: SessionStarted
    module: AgentModule = field(default_factory=CodingAgent)
    hooks: Sequence[Hook] = ()
    critics: tuple[Critic, ...] = ()
    limits: RunLimits = field(default_factory=RunLimits)
    retry: RetryConfig = field(default_factory=RetryConfig)
    tool_retry: RetryConfig = TOOL_RETRIES
    sampling: Sampling = field(default_factory=Sampling)
    fallbacks: Sequence[Callable[[], LLMClient]] = ()
    price_of: Callable[[ModelInfo], Price] = _unpriced
    check: Check = _unchecked
    state: AgentState = field(default_factory=AgentState)
    copies: Copies | None = None

    def __post_init__(self) -> None:
        self._emitting = asyncio.Lock()
        self._failed_hooks: set[int] = set()
        self._fallbacks = list(self.fallbacks)
        self._check_rounds = 0
        self._call_ids = {call.id for message in self.state.history for call in message.calls}
        self._run = Run()
        self._stage = ""
        self._foreign: tuple[Message, ...] = ()
        if self.state.model and self.state.model != self.session.model:
            self._foreign = without_thinking(self.state.history)
        self._acting = Acting(
            self.tools, self.context, self._emit, self._before_tool, self.tool_retry
        )
        self._search = (
            Search(self.tools, self.context, self.copies, self._emit) if self.copies else None
        )
        self._asking = Asking(self._emit, self.retry, self.limits, self.price_of)

    def start(self, task: str = "", *, checks: Sequence[str] = ()) -> Run:
        """Begin to work on a task, or without one to go on where the state stands."""
        self._run = Run()
        self._check_rounds = 0
        work = asyncio.create_task(self._work(task, tuple(checks)))
        driver = asyncio.create_task(self._drive(work))
        self._run.attach(work, driver)
        return self._run

    async def step(self) -> Stop | None:
        """One step; the stop that it led to, or None to go on."""
        number = self.state.step + 1
        started = time.monotonic()
        await self._emit(StepStarted(number))
        await self._observe(number)
        decision = await self._decide(number)
        results = await self._act(number, decision)
        await self._reduce(number, results)
        review = await self._critic(number)
        stop = await self._check_stop(number, decision, review)
        await self._emit(StepFinished(number, time.monotonic() - started))
        return stop

    async def _timed_step(self) -> Stop | None:
        try:
            async with asyncio.timeout(self.limits.step_time_s) as deadline:
                return await self.step()
        except TimeoutError:
            if not deadline.expired():
                raise
            where = f"step {self.state.running_step} ({self._stage})"
            detail = f"{where} took more than {self.limits.step_time_s:g} s"
            raise Stopped(stop_for(StopReason.BUDGET_TIME, detail=detail)) from None

    # -- the six stages ---------------------------------------------------------------------

    async def _observe(self, step: int) -> None:
        await self._enter(step, Stage.OBSERVE)
        for text in self._run.take_steered():
            await self._emit(MessageAdded(user(text)))
        if news := await self.module.observe(self.state):
            await self._emit(MessageAdded(user(news)))

    async def _decide(self, step: int) -> Decision:
        await self._enter(step, Stage.DECIDE)
        decision = await self.module.decide(self.state)
        while decision is None:
            try:
                answer = await self._asking.ask(self.client, self._request(), step, self.state)
            except ProviderError as error:
                await self._fall_back(step, error)
                continue
            response = answer.response
            if self._search is not None:
                response = await self._search.better(
                    self.client, self._request(), step, self.state, response
                )
            if problem := _unusable(response):
                await self._reject(step, problem, answer)
                continue
            message = self._with_unique_ids(response.message)
            await self._emit(
                ModelAnswered(
                    step,
                    message,
                    response.finish_reason,
                    response.usage,
                    answer.first_token_s,
                    answer.duration_s,
                    answer.cost_usd,
                )
            )
            decision = Act(message.calls) if message.calls else Final(message.text)
        return decision

    async def _act(self, step: int, decision: Decision) -> tuple[ToolResult, ...]:
        match decision:
            case Act(calls):
                await self._enter(step, Stage.ACT)
                await self._acting.run(step, calls)
                return self.state.step_results
            case Final() | Wait():
                return ()

    async def _reduce(self, step: int, results: tuple[ToolResult, ...]) -> None:
        await self._enter(step, Stage.REDUCE)
        if note := await self.module.reduce(self.state, results):
            await self._emit(MessageAdded(user(note)))

    async def _critic(self, step: int) -> Review:
        if not self.critics:
            return Review()
        await self._enter(step, Stage.CRITIC)
        return await review_all(self.critics, self.state)

    async def _check_stop(self, step: int, decision: Decision, review: Review) -> Stop | None:
        await self._enter(step, Stage.CHECK_STOP)
        if review.judgement is Judgement.STOP:
            return stop_for(StopReason.CRITIC_STOP, detail=review.reason)
        if review.judgement is Judgement.RETRY:
            await self._emit(MessageAdded(user(review.reason)))
            return None
        if self._run.has_steered:
            return None
        for result in self.state.step_results:
            if result.data.get(STOP) == StopReason.DECLINED:
                return stop_for(StopReason.DECLINED, answer=result.content)
        if isinstance(decision, Final):
            return await self._finish(decision.answer)
        if (reason := self.module.should_stop(self.state)) is not None:
            return stop_for(reason)
        if stagnant(self.state):
            detail = f"the same faulty call {REPEATS} times in a row"
            return stop_for(StopReason.STAGNATION, detail=detail)
        return None

    # -- deciding ---------------------------------------------------------------------------

    def _request(self) -> ChatRequest:
        return ChatRequest(
            (*self._foreign, *self.state.history.since(len(self._foreign))),
            self.tools.definitions(),
            self.sampling,
            conversation=self.state.session_id,
            argument_text=self._text_of,
        )

    async def _text_of(self, tool: str, arguments: Mapping[str, Any]) -> str | None:
        return await self.tools.text_of(tool, arguments, self.context)

    async def _fall_back(self, step: int, error: ProviderError) -> None:
        """Go on with the next model that can be had, or raise ``error`` where there is none."""
        while self._fallbacks:
            make = self._fallbacks.pop(0)
            try:
                client = await asyncio.to_thread(make)  # it may have an SDK to import
            except AgentCLIError as missing:
                await self._emit(Warned(f"a fallback cannot be used: {missing.line()}"))
                continue
            failed, self.client = self.client, client
            name = f"{client.info.provider}:{client.info.id}"
            await self._emit(ModelChanged(step, name, error.message))
            self._foreign = without_thinking(self.state.history)
            await failed.aclose()
            return
        raise error

    async def _reject(self, step: int, problem: str, answer: Answer) -> None:
        await self._emit(AnswerRejected(step, problem, answer.response.usage, answer.cost_usd))
        if answer.response.finish_reason is FinishReason.CONTENT_FILTER:
            raise ContentFilterError(problem, provider=self.client.info.provider)
        if self.state.rejected >= self.limits.rejected_answers:
            raise Stopped(
                stop_for(
                    StopReason.PROVIDER_FAILED,
                    detail=f"no usable answer after {self.state.rejected} tries: {problem}",
                )
            )
        await self._emit(MessageAdded(user(f"{problem[0].upper()}{problem[1:]}. {_NUDGE}")))

    def _with_unique_ids(self, message: Message) -> Message:
        """Rename calls whose id is empty or used already: results are paired by id."""
        parts = list(message.parts)
        for place, part in enumerate(parts):
            if not isinstance(part, ToolCall):
                continue
            name, count = part.id, 1
            while not name or name in self._call_ids:
                count += 1
                name = f"{part.id or 'call'}-{self.state.running_step}-{count}"
            self._call_ids.add(name)
            if name != part.id:
                parts[place] = replace(part, id=name)
        return replace(message, parts=tuple(parts))

    # -- ending -----------------------------------------------------------------------------

    async def _finish(self, answer: str) -> Stop | None:
        """Run the checks; failed ones go back to the model a few times."""
        if self.state.checks and self.session.mode == PLAN:
            await self._emit(Warned("the checks were not run: plan mode only reads"))
            return stop_for(StopReason.FINAL, answer=answer)
        failed = [check for check in await self._run_checks() if not check.passed]
        if not failed:
            return stop_for(StopReason.FINAL, answer=answer)
        if self._check_rounds < self.limits.check_rounds:
            self._check_rounds += 1
            reports = "\n\n".join(f"{_FAILED_CHECK}\n{check.output}" for check in failed)
            await self._emit(MessageAdded(user(f"{reports}\n\nThe task is not done yet.")))
            return None
        names = ", ".join(check.command for check in failed)
        return Stop(StopReason.FINAL, Status.UNSOLVED, answer, f"failed checks: {names}")

    async def _run_checks(self) -> list[CheckFinished]:
        done = []
        # All reports together take no more room than one tool's result.
        room = self.context.output_chars // max(1, len(self.state.checks))
        for command in self.state.checks:
            await self._emit(
                CheckStarted(command, self._check_rounds + 1, self.limits.check_rounds + 1)
            )
            output = await self.check(replace(self.context, output_chars=room), command)
            done.append(
                CheckFinished(
                    command,
                    output.outcome is Outcome.OK,
                    output.data.get("exit_code"),
                    output.content,
                )
            )
            await self._emit(done[-1])
        return done

    # -- the run ----------------------------------------------------------------------------

    async def _work(self, task: str, checks: tuple[str, ...]) -> None:
        """Steps until one leads to a stop; always ends by raising ``Stopped`` or an error."""
        try:
            async with asyncio.timeout(self.limits.time_s) as deadline:
                await self._open(task, checks)
                while True:
                    if stop := used_up(self.limits, self.state) or await self._timed_step():
                        raise Stopped(stop)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Stopped(
                stop_for(StopReason.BUDGET_TIME, detail=f"{self.limits.time_s:g} s are over")
            ) from None

    async def _open(self, task: str, checks: tuple[str, ...]) -> None:
        await self._emit(self.session)
        # A process that died left calls without results; nobody knows what they did.
        await self._resolve_calls()
        if not self.state.history:
            if prompt := self.module.build_system_prompt(self.state):
                await self._emit(MessageAdded(system(prompt)))
            for message in self.module.init_state(self.state):
                await self._emit(MessageAdded(message))
        if task or checks:
            await self._emit(TaskGiven(task, checks, self.limits.of_task()))
        # A process that died right after the task was given never told the model of it.
        told = user(self.state.task)
        if task or (self.state.task and told not in self.state.history):
            await self._emit(MessageAdded(told))

    async def _drive(self, work: asyncio.Task[None]) -> RunResult:
        stop = await self._outcome(work)
        status = stop.status
        final = RunFinished(
            stop.reason,
            status,
            stop.answer,
            stop.detail,
            exit_code(stop.reason, status),
            stop.error,
            stop.place,
        )
        try:
            await self._resolve_calls()
            await self._emit(final, sync=True)
        except JournalError as error:
            final = _journal_failure(error, stop.place or self._place())
            self.state = fold(self.state, final)
            await self._show(final)
        self._run.end()
        return RunResult(
            self.state, self.state.records, self.state.step, final.answer, final.exit_code
        )

    async def _outcome(self, work: asyncio.Task[None]) -> Stop:
        try:
            await asyncio.wait([work])
            work.result()
        except Stopped as stopped:
            return stopped.stop
        except asyncio.CancelledError:
            return stop_for(StopReason.CANCELLED, detail="interrupted")
        except ProviderError as error:
            return stop_by(StopReason.PROVIDER_FAILED, error, self._place())
        except (CapabilityError, SandboxError) as error:
            return stop_by(StopReason.ENV_CAPABILITY_MISMATCH, error, self._place())
        except AgentCLIError as error:
            return stop_by(StopReason.UNRECOVERABLE_ERROR, error, self._place())
        except Exception as error:
            _log.exception("internal error")
            return stop_for(StopReason.UNRECOVERABLE_ERROR, detail=f"internal error: {error!r}")
        return stop_for(StopReason.UNRECOVERABLE_ERROR, detail="the run ended without a reason")

    async def _resolve_calls(self) -> None:
        """Give every open call its result, so that the history is well-formed."""
        step = self.state.running_step
        for call in self.state.unresolved:
            result = interrupted(call, call.id in self.state.started)
            await self._emit(ToolFinished(step, result))

    # -- events -----------------------------------------------------------------------------

    async def _emit(self, event: Event, *, sync: bool = False) -> None:
        """Record, fold and show one event. Parallel tools wait for each other here."""
        async with self._emitting:
            if event.durable:
                try:
                    await self.log.append(event, sync=sync)
                except asyncio.CancelledError:
                    self.state = fold(self.state, event)  # it is recorded all the same
                    raise
                self.state = fold(self.state, event)
            await self._show(event)
            if (moved := self._phase_change(event)) is not None:
                await self.log.append(moved)
                self.state = fold(self.state, moved)
                await self._show(moved)

    def _place(self) -> Place:
        return Place(self.state.running_step, self._stage)

    async def _enter(self, step: int, stage: Stage) -> None:
        self._stage = stage.value
        await self._emit(StageStarted(step, stage))

    async def _show(self, event: Event) -> None:
        await self._run.put(event)
        for index, hook in enumerate(self.hooks):
            try:
                await hook.on_event(event, self.state)
            except Exception as error:
                await self._report_hook(index, hook, error)

    async def _report_hook(self, index: int, hook: Hook, error: Exception) -> None:
        if index in self._failed_hooks:
            return
        self._failed_hooks.add(index)
        warned = Warned(f"hook {type(hook).__name__} failed: {error!r}")
        with contextlib.suppress(JournalError):
            await self.log.append(warned)
        await self._run.put(warned)

    async def _before_tool(self, call: ToolCall) -> ToolResult | None:
        """The answer of the first hook that does not allow the call."""
        limit = self.limits.tool_calls
        if limit is not None and self.state.used.tool_calls >= limit:
            text = f"not run: the budget of {limit} tool calls is used up"
            return ToolResult(call.id, call.name, text, Outcome.SKIPPED)
        for index, hook in enumerate(self.hooks):
            try:
                verdict = await hook.before_tool(call, self.state)
            except Exception as error:
                async with self._emitting:
                    await self._report_hook(index, hook, error)
                continue
            match verdict:
                case Allow():
                    continue
                case Deny(reason):
                    return ToolResult(call.id, call.name, f"denied: {reason}", Outcome.DENIED)
                case _:
                    return replace(verdict.result, call_id=call.id, name=call.name)
        return None

    def _phase_change(self, event: Event) -> PhaseChanged | None:
        if not isinstance(event, ToolStarted) or not event.tool_kind:
            return None
        edited = bool(self.state.files_changed)
        phase = phase_of(self.state.phase, ToolKind(event.tool_kind), edited=edited)
        if phase is self.state.phase:
            return None
        return PhaseChanged(event.step, self.state.phase, phase)


_NUDGE = "It was not used; answer again"
_FAILED_CHECK = "A check of the task failed:"


def _journal_failure(error: JournalError, place: Place) -> RunFinished:
    reason, status = StopReason.UNRECOVERABLE_ERROR, Status.FAILED
    code, name = exit_code(reason, status), type(error).__name__
    return RunFinished(reason, status, "", error.line(), code, name, error.place or place)


def _unusable(response: ChatResponse) -> str | None:
    """What is wrong with an answer, or None."""
    if response.finish_reason is FinishReason.CONTENT_FILTER:
        return "the answer was stopped by the provider's content filter"
    if response.cut_calls:
        return "your last answer reached the token limit inside a tool call, which was not run"
    if response.finish_reason is FinishReason.LENGTH:
        return "your last answer was cut off at the token limit; it must be shorter"
    if not response.message.calls and not response.message.text.strip():
        return "your last answer was empty"
    return None
