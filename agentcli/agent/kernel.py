"""The kernel: a run is a series of steps, each observe, decide, act, reduce, critic, check_stop.

The kernel runs in its own task. Everything that happens is an event and goes through the one stream
of ``agentcli.agent.stream``. An agent serves many runs, one after another: the turns of a chat are
runs of one session, and each continues the history of the previous ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from agentcli.agent.acting import Acting
from agentcli.agent.answering import Answering
from agentcli.agent.asking import Asking
from agentcli.agent.behaviour import Behaviour
from agentcli.agent.budget import (
    ContextRules,
    Price,
    RunLimits,
    calls_used_up,
    unpriced,
    used_up,
)
from agentcli.agent.caps import Caps, SoftCaps
from agentcli.agent.checking import Check, Checking, unchecked
from agentcli.agent.compacting import Compacting, Compaction
from agentcli.agent.criteria import Criterion, Moment, standard
from agentcli.agent.critics import Critic, Judgement, Review
from agentcli.agent.decision import Act, Decision, Final
from agentcli.agent.events import (
    EventLog,
    MemoryLog,
    MessageAdded,
    ModeChanged,
    ModelChanged,
    Recovered,
    SessionStarted,
    Stage,
    StageStarted,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
)
from agentcli.agent.hooks import Hook
from agentcli.agent.memory import Memory, Recalling
from agentcli.agent.preflight import Preflight, run_preflight
from agentcli.agent.processors.base import Processor
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.agent.recording import Recorder, Recording
from agentcli.agent.recovery import TOOL_RETRIES, RecoveryPolicy, RetryConfig
from agentcli.agent.reviewing import Reviewing
from agentcli.agent.run import Run, RunResult
from agentcli.agent.search import Search
from agentcli.agent.sessions import session_of
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stop, Stopped, error_of, finished, stop_for, stop_of, unrecorded
from agentcli.agent.stream import Stream
from agentcli.agent.trying import Copies
from agentcli.environments.base import Nowhere
from agentcli.errors import ConfigError, InternalError, JournalError, Place, UsageError
from agentcli.llm.client import LLMClient, ModelInfo, Sampling
from agentcli.messages import (
    Image,
    Outcome,
    ToolCall,
    ToolResult,
    aside,
    system,
    user,
)
from agentcli.tools.base import Tool, ToolContext
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry

_log = logging.getLogger("agentcli.kernel")


class Agent:
    """A model, tools and a workspace, ready to work on tasks."""

    def __init__(
        self,
        client: LLMClient,
        tools: Registry | Iterable[Tool] = (),
        context: ToolContext | None = None,
        log: EventLog | None = None,
        session: SessionStarted | None = None,
        *,
        state: AgentState | None = None,
        module: Behaviour | None = None,
        hooks: Sequence[Hook] = (),
        critics: Sequence[Critic] = (),
        criteria: Sequence[Criterion] = (),
        preflight: Preflight | None = None,
        recovery: RecoveryPolicy | None = None,
        limits: RunLimits | None = None,
        retry: RetryConfig | None = None,
        tool_retry: RetryConfig = TOOL_RETRIES,
        sampling: Sampling | None = None,
        fallbacks: Sequence[Callable[[], LLMClient]] = (),
        connect: Callable[[str], LLMClient] | None = None,
        price_of: Callable[[ModelInfo], Price] | None = None,
        window_of: Callable[[ModelInfo], int | None] | None = None,
        check: Check | None = None,
        copies: Copies | None = None,
        recorder: Recorder | None = None,
        caps: Caps | None = None,
        memory: Memory | None = None,
        rules: ContextRules | None = None,
        processors: Sequence[Processor] | None = None,
    ) -> None:
        """Only ``client`` is required. Without ``context`` there is no workspace.

        ``log`` records durable events (by default in memory), ``session`` is the first of them and
        ``state`` the state of a session to resume. ``criteria`` end a run in addition to the
        standard ones. ``preflight`` finds problems before the first step of the first run.

        ``fallbacks`` make the clients to use, in order, when a model fails permanently; ``connect``
        makes the client of a model chosen by name. ``price_of`` and ``window_of`` look up a model's
        prices and context window, and may block. ``check`` runs a check of a task; ``copies`` opens
        copies of the workspace to try edits on; ``recorder`` notices which files change. ``rules``
        and ``processors`` say when and how a long conversation is compacted, and ``memory`` reminds
        the model of what it no longer sees.
        """
        tools = tools if isinstance(tools, Registry) else Registry(tools)
        context = context or ToolContext(Nowhere())
        context = replace(context, sees_images=lambda: self.client.info.images)
        log = log or MemoryLog()
        self.tools = tools
        self.context = context
        self.session = session or session_of(client, tools, context)
        self.limits = limits or RunLimits()
        self.log = log
        self.stream = Stream(log, hooks, state or AgentState())
        self.notices: list[str] = []
        """Messages to the user outside the events; the user interface shows and removes them."""
        self._module = module or Behaviour()
        self._preflight = preflight
        self._recovery = recovery or RecoveryPolicy()
        self._connect = connect
        self._run: Run | None = None
        self._told: list[str] = []
        self._stage = Stage.OBSERVE
        self._began = time.monotonic()
        emit = self.stream.emit
        self._recalling = Recalling(memory, self.stream)
        self._caps = SoftCaps(caps or Caps(), self.limits, tools.spec)
        self._recording = Recording(recorder, self.stream)
        note = self._recording.note
        self._acting = Acting(tools, context, emit, self._before_tool, note, tool_retry)
        self._checking = Checking(
            check or unchecked, context, self.stream, self.limits.check_rounds
        )
        asking = Asking(emit, retry or RetryConfig(), self.limits, price_of or unpriced)
        self._reviewing = Reviewing(critics, self.stream, asking)
        self._criteria = standard(
            self._checking, self._module, self.limits, context.environment, criteria
        )
        if processors is None:
            processors = processors_named(STANDARD)
        self._compacting = Compacting(
            self.stream, asking, tools.purpose, rules or ContextRules(), processors, window_of
        )
        self._answering = Answering(
            client,
            fallbacks,
            asking,
            self._compacting,
            self.stream,
            tools,
            context,
            limits=self.limits,
            sampling=sampling or Sampling(),
            search=Search(tools, context, copies, emit) if copies else None,
        )

    @property
    def state(self) -> AgentState:
        """The current state of the session."""
        return self.stream.state

    @property
    def client(self) -> LLMClient:
        """The client of the current model."""
        return self._answering.client

    @property
    def context_window(self) -> int | None:
        """The model's context window in tokens, if it is known by now."""
        return self._compacting.window(self.client)

    def start(
        self, task: str = "", *, checks: Sequence[str] = (), images: Sequence[Image] = ()
    ) -> Run:
        """Start to work on a task; without one, continue from the current state.

        Raises:
            UsageError: the previous run has not ended, or the model does not accept images.
        """
        self.check_idle("start")
        self._answering.check_images(images)
        if self._run is not None:  # a fallback may answer by now
            self.session = replace(self.session, model=self.state.model)
        before, run = self._run, Run()
        while before and (text := before.next_steered()) is not None:
            run.steer(text)  # it came after the previous run had ended
        self._run = self.stream.run = run
        self._checking.begin()
        self._began = time.monotonic()
        self._caps.begin()
        work = asyncio.create_task(self._work(task, tuple(checks), tuple(images)))
        run.attach(work, asyncio.create_task(self._drive(run, work)))
        return run

    async def end(self) -> None:
        """Cancel a run that is still in progress, and wait until its end is recorded."""
        if self._run is not None and not self._run.ended:
            await self._run.abandon()

    def tell(self, text: str) -> None:
        """Tell the model something before its next step, without starting a run for it.

        A model that was trained on the words of users and tools alone is not told.
        """
        self._told.append(text)

    async def set_mode(self, mode: Mode) -> None:
        """Set the permission mode from the next call on; the model is told if it matters to it."""
        if isinstance(self.tools.permissions, ModePermissions):
            self.tools.permissions.mode = mode
        self.session = replace(self.session, mode=mode.value)
        if self.state.session_id and self.state.mode != mode.value:
            await self.stream.emit(ModeChanged(mode.value))

    async def set_model(self, name: str) -> None:
        """Use another model for the turns that follow.

        Raises:
            UsageError: a run is in progress.
            AgentCLIError: the model is not available; the current one stays.
        """
        self.check_idle("change the model")
        if self._connect is None:
            raise ConfigError("models cannot be changed by name here")
        client = await asyncio.to_thread(self._connect, name)  # may import an SDK
        try:
            self.check_idle("change the model")  # a run may have started meanwhile
            self.session = replace(self.session, model=name)
            if self.state.session_id:
                await self.stream.emit(ModelChanged(self.state.step, name, ""))
        except BaseException:
            await client.aclose()
            raise
        await self._answering.replace(client)

    async def compact(self, *, preview: bool = False, keep: Collection[int] = ()) -> Compaction:
        """Compact the conversation now; with ``preview``, only show what would be left out.

        ``keep`` are the numbers (from 0) of messages in the history that must stay as they are.

        Raises:
            UsageError: a run is in progress, or ``keep`` has a number that no message has.
        """
        self.check_idle("compact")
        await self.stream.resolve_calls()
        return await self._answering.compact(preview=preview, keep=keep)

    async def uncompact(self) -> Compaction:
        """Undo the last compaction.

        Raises:
            UsageError: a run is in progress, or nothing was compacted.
        """
        self.check_idle("uncompact")
        return await self._compacting.undo()

    async def step(self) -> Stop | None:
        """Make one step; return the stop that it led to, or None to go on."""
        number = self.state.step + 1
        started = time.monotonic()
        await self.stream.emit(StepStarted(number))
        await self._observe(number)
        decision = await self._decide(number)
        results = await self._act(number, decision)
        await self._reduce(number, results)
        review = await self._critic(number)
        stop = await self._check_stop(number, decision, review)
        await self._recording.note(number)
        for reached in self._caps.after_step(self.state):
            await self.stream.emit(reached)
        await self.stream.emit(StepFinished(number, time.monotonic() - started))
        self._recalling.note()
        return stop

    # -- the six stages ---------------------------------------------------------------------

    async def _observe(self, step: int) -> None:
        await self._enter(step, Stage.OBSERVE)
        await self._take_told()
        await self._take_steered()
        mode = self.state.mode
        if note := self._module.announce_mode(self.state.told_mode, mode):
            await self.stream.emit(MessageAdded(user(note), mode, own=True))
        if news := await self._module.observe(self.state):
            await self.stream.emit(MessageAdded(user(news), own=True))
        await self._recalling.remind()

    async def _decide(self, step: int) -> Decision:
        await self._enter(step, Stage.DECIDE)
        decision = await self._module.decide(self.state)
        if decision is not None:
            return await self._answering.adopt(step, decision)
        message = await self._answering.answer(step)
        return Act(message.calls) if message.calls else Final(message.text)

    async def _act(self, step: int, decision: Decision) -> tuple[ToolResult, ...]:
        match decision:
            case Act(calls):
                await self._enter(step, Stage.ACT)
                await self._acting.run(step, calls)
                await self._recording.note(step)
                return self.state.step_results
            case _:
                return ()

    async def _reduce(self, step: int, results: tuple[ToolResult, ...]) -> None:
        await self._enter(step, Stage.REDUCE)
        if note := await self._module.reduce(self.state, results):
            await self.stream.emit(MessageAdded(user(note), own=True))

    async def _critic(self, step: int) -> Review:
        if not self._reviewing:
            return Review()
        await self._enter(step, Stage.CRITIC)
        return await self._reviewing.review(step)

    async def _check_stop(self, step: int, decision: Decision, review: Review) -> Stop | None:
        await self._enter(step, Stage.CHECK_STOP)
        if review.judgement is Judgement.STOP:
            return stop_for(StopReason.CRITIC_STOP, detail=review.reason)
        if review.judgement is Judgement.RETRY:
            await self.stream.emit(MessageAdded(user(review.reason), own=True))
            return None
        if self._current.has_steered:
            return None
        elapsed_s = time.monotonic() - self._began
        return await self._criteria.met(Moment(self.state, decision, elapsed_s))

    async def _take_told(self) -> None:
        while self._told:
            if not self.client.info.fits_itself:
                await self.stream.emit(MessageAdded(aside(self._told[0]), own=True))
            del self._told[0]

    async def _take_steered(self) -> None:
        """Record the user's steering messages one by one, so that a cancellation loses none."""
        while (text := self._current.next_steered()) is not None:
            await self.stream.emit(MessageAdded(user(text)))

    async def _enter(self, step: int, stage: Stage) -> None:
        self._stage = stage
        await self.stream.emit(StageStarted(step, stage))

    async def _before_tool(self, call: ToolCall) -> ToolResult | None:
        """The result of a call that must not run: the budget is used up, or a hook answers."""
        if (why := calls_used_up(self.limits, self.state)) is not None:
            return ToolResult(call.id, call.name, f"not run: {why}", Outcome.SKIPPED)
        return await self.stream.verdict(call)

    # -- the run ----------------------------------------------------------------------------

    async def _work(self, task: str, checks: tuple[str, ...], images: tuple[Image, ...]) -> None:
        """Make steps until one leads to a stop; always ends by raising ``Stopped`` or an error."""
        try:
            async with asyncio.timeout(self.limits.time_s) as deadline:
                await self._open(task, checks, images)
                while True:
                    if stop := used_up(self.limits, self.state) or await self._timed_step():
                        raise Stopped(stop)
        except TimeoutError:
            if not deadline.expired():
                raise
            detail = f"{self.limits.time_s:g} s are over"
            raise Stopped(stop_for(StopReason.BUDGET_TIME, detail=detail)) from None

    async def _open(self, task: str, checks: tuple[str, ...], images: tuple[Image, ...]) -> None:
        emit = self.stream.emit
        await emit(self.session)
        # If the last process died, it may have left calls without results.
        await self.stream.resolve_calls()
        if not self.state.history:
            if prompt := self._module.build_system_prompt(self.state):
                await emit(MessageAdded(system(prompt), own=True))
            for message in self._module.init_state(self.state):
                await emit(MessageAdded(message, own=True))
        await self._take_told()
        await self._take_steered()
        if task or checks:
            await emit(TaskGiven(task, checks, self.limits.of_task()))
        # If the last process died right after the task was given, the model never saw it.
        was_told = any(said.text == self.state.task for said in self.state.history)
        if task or images or (self.state.task and not was_told):
            text = task if images else self.state.task
            await emit(MessageAdded(user(text, *images)))
        preflight, self._preflight = self._preflight, None
        if preflight is not None:
            await run_preflight(preflight, self.stream)

    async def _timed_step(self) -> Stop | None:
        try:
            async with asyncio.timeout(self.limits.step_time_s) as deadline:
                return await self.step()
        except TimeoutError:
            if not deadline.expired():
                raise
            where = f"step {self.state.running_step} ({self._stage.value})"
            detail = f"{where} took more than {self.limits.step_time_s:g} s"
            raise Stopped(stop_for(StopReason.BUDGET_TIME, detail=detail)) from None
        except Stopped:
            raise
        except Exception as error:
            count = self.state.recoveries + 1
            if not self._recovery.covers(error, count):
                raise
            await self._recover(error, count)
            return None

    async def _recover(self, error: Exception, count: int) -> None:
        """Leave the failed step in a well-formed state; the next step reuses its number."""
        _log.warning("recovering from an error in %s", self._stage, exc_info=error)
        step, stage, limit = self.state.running_step, self._stage, self._recovery.limit
        await self.stream.resolve_calls()
        await self.stream.emit(Recovered(step, stage, repr(error), count, limit))

    async def _drive(self, run: Run, work: asyncio.Task[None]) -> RunResult:
        """Wait for the work and end the run, in a task that ``cancel`` does not reach."""
        await asyncio.wait([work])
        await self._answering.end()
        stop = stop_of(error_of(work), self._place())
        final = finished(stop)
        try:
            await self.stream.resolve_calls()
            await self._recording.note(self.state.running_step)
            await self.stream.emit(final, sync=True)
        except JournalError as error:
            final = unrecorded(error, stop.place or self._place())
            await self.stream.tell(final)
        run.end()
        state = self.state
        events = tuple(run.recorded)
        return RunResult(state, state.records, events, state.step, final.answer, final.exit_code)

    def _place(self) -> Place:
        return Place(self.state.running_step, self._stage.value)

    @property
    def _current(self) -> Run:
        if self._run is None:
            raise InternalError("no run is in progress")
        return self._run

    def check_idle(self, doing: str) -> None:
        """Make sure that no run is in progress; ``doing`` names the action for the error message.

        Raises:
            UsageError: a run is in progress.
        """
        if self._run is not None and not self._run.ended:
            raise UsageError(
                f"cannot {doing}: the previous run has not ended",
                hint="Await its result or cancel it",
            )
