"""The state of a run: an immutable value, and nothing but the fold of its durable events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    Compacted,
    CompactionUndone,
    Decided,
    Event,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    Phase,
    PhaseChanged,
    Recovered,
    Replaced,
    RetryScheduled,
    Rewound,
    RunFinished,
    SessionStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    WorkspaceChanged,
    WorkspaceTaken,
)
from agentcli.agent.phase import Progress, after
from agentcli.agent.view import shown
from agentcli.errors import Place
from agentcli.messages import (
    Message,
    Outcome,
    Role,
    ToolCall,
    ToolResult,
    Usage,
    tool,
    without_thinking,
)
from agentcli.tools.base import PLAN, ToolKind

T = TypeVar("T")

EDIT = ToolKind.EDIT.value

STATUS_OF: Mapping[StopReason, Status] = {
    StopReason.FINAL: Status.SOLVED,
    StopReason.SUCCESS: Status.SOLVED,
    StopReason.AGENT_CONDITION: Status.SOLVED,
    StopReason.ENV_TERMINAL: Status.SOLVED,
    StopReason.CRITIC_STOP: Status.UNSOLVED,
    StopReason.STAGNATION: Status.UNSOLVED,
    StopReason.DECLINED: Status.UNSOLVED,
    StopReason.TRIES_USED_UP: Status.UNSOLVED,
    StopReason.BUDGET_STEPS: Status.STOPPED,
    StopReason.BUDGET_TIME: Status.STOPPED,
    StopReason.BUDGET_TOKENS: Status.STOPPED,
    StopReason.BUDGET_COST: Status.STOPPED,
    StopReason.BUDGET_TOOLS: Status.STOPPED,
    StopReason.TASK_VALIDATION_FAILED: Status.INVALID,
    StopReason.PROVIDER_FAILED: Status.FAILED,
    StopReason.ENV_CAPABILITY_MISMATCH: Status.FAILED,
    StopReason.UNRECOVERABLE_ERROR: Status.FAILED,
    StopReason.CANCELLED: Status.CANCELLED,
}

_EXIT_OF_FAILURE: Mapping[StopReason, int] = {
    StopReason.PROVIDER_FAILED: 3,
    StopReason.ENV_CAPABILITY_MISMATCH: 4,
    StopReason.UNRECOVERABLE_ERROR: 5,
}

_EXIT_OF: Mapping[Status, int] = {
    Status.SOLVED: 0,
    Status.UNSOLVED: 1,
    Status.STOPPED: 1,
    Status.INVALID: 2,
    Status.CANCELLED: 130,
}


def exit_code(reason: StopReason, status: Status) -> int:
    """The process exit code that a run's end stands for; termination by signal adds its own."""
    if status is Status.FAILED:
        return _EXIT_OF_FAILURE[reason]
    return _EXIT_OF[status]


class History(Generic[T]):
    """An append-only sequence that shares its storage with the histories it grew from.

    Appending to the newest one costs one list append; appending to an older one copies, so that
    no history ever changes under its holder.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._length = len(self._items)

    def append(self, item: T) -> History[T]:
        """A history with one more item."""
        grown: History[T] = History.__new__(History)
        grown._items = (
            self._items if len(self._items) == self._length else self._items[: self._length]
        )
        grown._items.append(item)
        grown._length = self._length + 1
        return grown

    def since(self, start: int) -> list[T]:
        """The items from ``start`` on; a negative one counts from the end."""
        first = start if start >= 0 else max(0, self._length + start)
        return self._items[first : self._length]

    def upto(self, length: int) -> History[T]:
        """The history as it was when it had so many items; storage stays shared."""
        older: History[T] = History.__new__(History)
        older._items, older._length = self._items, min(length, self._length)
        return older

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return iter(self._items[: self._length])

    def __getitem__(self, index: int) -> T:
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._items[index if index >= 0 else self._length + index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"History({list(self)!r})"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One complete step: what was decided, what came of it, and what it cost."""

    step: int
    phase: Phase
    decision: Message | None
    results: tuple[ToolResult, ...]
    usage: Usage
    retries: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What has been used; cost in US dollars, None where it is not known."""

    steps: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0


@dataclass(frozen=True)  # without slots, which ``_with`` could not copy at once
class AgentState:
    """Everything known about a session. ``step`` is the last complete one, 0 before the first."""

    session_id: str = ""
    workspace: str = ""
    model: str = ""
    mode: str = ""
    told_mode: str = ""
    """The mode that the model was last told of."""
    sandbox: str = ""
    task: str = ""
    checks: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    history: History[Message] = field(default_factory=History)
    view: History[Message] = field(default_factory=History)
    """The history as the model is shown it: compacted, without the thoughts of other models."""
    compactions: tuple[Compacted, ...] = ()
    foreign: int = 0
    """So many messages of the history are from before the model changed."""
    context_tokens: int = 0
    """What the last request and its answer took of the context window."""
    records: History[StepRecord] = field(default_factory=History)
    step: int = 0
    running_step: int = 0
    phase: Phase = Phase.EXPLORE
    progress: Progress = field(default_factory=Progress)
    """Where the calls that have ended lead; while others run, ``phase`` may be ahead of it."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    """US dollars of all calls of this run; None once one of them has an unknown price."""
    before: Totals = field(default_factory=Totals)
    """What the session had used when this run began; limits hold for a run."""
    retries: int = 0
    rejected: int = 0
    """Unusable answers in a row."""
    recoveries: int = 0
    """Of this run."""
    tool_calls: int = 0
    plan: tuple[str, ...] = ()
    """The steps of the last plan that was made for the task."""
    pending: tuple[ToolCall, ...] = ()
    """Calls of the last answer, as long as not all have a result."""
    results: tuple[ToolResult, ...] = ()
    """Results of the pending calls, in the order they came."""
    started: Mapping[str, str] = field(default_factory=dict)
    """Ids of pending calls whose tool has started, and what each is for (a tool's kind)."""
    files_changed: tuple[str, ...] = ()
    changes: History[WorkspaceChanged] = field(default_factory=History)
    """What happened to files, as far as it was not taken back."""
    trees: tuple[tuple[int, str], ...] = ()
    """Lists of all files, each with the number of changes before it."""
    left_out: tuple[str, ...] = ()
    """What those lists do not hold."""
    marks: History[AgentState] = field(default_factory=History, compare=False, repr=False)
    """Where the session can go back to: the state before each task and after each step."""
    turn: bool = False
    """Of a mark: whether it stands before a task, and not after a step."""
    undone: tuple[Undone, ...] = field(default=(), compare=False, repr=False)
    """What can be had again, the last undone first."""
    check_results: tuple[CheckFinished, ...] = ()
    stop: StopReason | None = None
    status: Status | None = None
    answer: str = ""
    detail: str = ""
    error: str = ""
    """The class of the error that ended the run, and where it arose."""
    place: Place | None = None
    step_decision: Message | None = None
    step_results: tuple[ToolResult, ...] = ()
    step_usage: Usage = field(default_factory=Usage)
    step_retries: int = 0

    @property
    def unresolved(self) -> tuple[ToolCall, ...]:
        """Pending calls that have no result yet."""
        have = {result.call_id for result in self.results}
        return tuple(call for call in self.pending if call.id not in have)

    @property
    def said(self) -> tuple[Message, ...]:
        """The whole history, without the thoughts of other models than the one that reads it."""
        own = without_thinking(self.history.since(0)[: self.foreign])
        return (*own, *self.history.since(self.foreign))

    @property
    def replaced(self) -> tuple[Replaced, ...]:
        """What of it the model is not shown as it was said."""
        return self.compactions[-1].replaced if self.compactions else ()

    @property
    def used(self) -> Totals:
        """What this run has used."""
        return Totals(
            self.step - self.before.steps,
            self.tool_calls - self.before.tool_calls,
            self.usage - self.before.usage,
            self.cost_usd,
        )

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.stop is not None


@dataclass(frozen=True, slots=True)
class Undone:
    """A state that was left by going back, and what going back did to files."""

    state: AgentState
    event: Rewound


if TYPE_CHECKING:
    from dataclasses import replace as _with  # what the fields are is checked as ever
else:

    def _with(state, **changes):
        """``dataclasses.replace``, ten times as fast: a long session is folded when it opens."""
        changed = object.__new__(AgentState)
        vars(changed).update(vars(state))
        vars(changed).update(changes)
        return changed


def fold(state: AgentState, event: Event) -> AgentState:
    """The state after one more durable event; transient events leave it as it is."""
    match event:
        case SessionStarted():
            if state.model not in ("", event.model):
                state = _changed_model(state)
            return _with(
                state,
                session_id=event.session_id,
                workspace=event.workspace,
                model=event.model,
                mode=event.mode,
                sandbox=event.sandbox,
                before=Totals(state.step, state.tool_calls, state.usage),
                cost_usd=0.0,
                rejected=0,
                recoveries=0,
                stop=None,
                status=None,
                answer="",
                detail="",
                error="",
                place=None,
            )
        case TaskGiven(text="", checks=more):
            return _with(state, checks=(*state.checks, *more))
        case TaskGiven():
            state = _marked(state, turn=True)
            return _with(
                state,
                undone=(),
                task=event.text,
                checks=event.checks,
                limits=event.limits,
                check_results=(),
                files_changed=(),
                progress=Progress(),
                plan=(),
            )
        case MessageAdded():
            told = state.mode if event.message.role is Role.SYSTEM else event.mode
            return _with(_said(state, event.message), told_mode=told or state.told_mode)
        case ModeChanged():
            return _with(state, mode=event.mode)
        case StepStarted():
            return _with(
                state,
                undone=(),
                running_step=event.step,
                step_decision=None,
                step_results=(),
                step_usage=Usage(),
                step_retries=0,
            )
        case Decided():
            return _with(
                _said(state, event.message),
                step_decision=event.message,
                pending=event.message.calls,
                results=(),
                started={},
            )
        case ModelAnswered():
            return _with(
                _said(state, event.message),
                context_tokens=event.usage.total_tokens,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
                step_decision=event.message,
                rejected=0,
                pending=event.message.calls,
                results=(),
                started={},
            )
        case AnswerRejected():
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
                rejected=state.rejected + 1,
            )
        case RetryScheduled():
            state = _with(state, retries=state.retries + 1, step_retries=state.step_retries + 1)
            if not event.usage.total_tokens:
                return state
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
            )
        case Recovered():
            return _with(state, recoveries=state.recoveries + 1)
        case ModelChanged():
            return _with(_changed_model(state), model=event.model)
        case ModelUsed():
            return _with(
                state,
                usage=state.usage + event.usage,
                cost_usd=_sum(state.cost_usd, event.cost_usd),
                step_usage=state.step_usage + event.usage,
            )
        case Compacted():
            compactions = (*state.compactions, event)
            return _viewed(_with(state, compactions=compactions), event.tokens_after)
        case CompactionUndone() if state.compactions:
            undone = state.compactions[-1]
            state = _with(state, compactions=state.compactions[:-1])
            return _viewed(state, undone.tokens_before)
        case ToolStarted():
            return _with(
                state,
                started={**state.started, event.call.id: event.purpose or event.tool_kind},
                tool_calls=state.tool_calls + 1,
            )
        case ToolFinished():
            return _add_result(state, event.result)
        case PhaseChanged():
            return _with(state, phase=event.phase)
        case CheckFinished():
            others = tuple(c for c in state.check_results if c.command != event.command)
            return _with(state, check_results=(*others, event))
        case StepFinished():
            record = StepRecord(
                event.step,
                state.phase,
                state.step_decision,
                state.step_results,
                state.step_usage,
                state.step_retries,
                event.duration_s,
            )
            state = _with(state, step=event.step, records=state.records.append(record))
            return _marked(state)
        case WorkspaceTaken():
            trees = (*state.trees, (len(state.changes), event.tree))
            return _with(state, trees=trees, left_out=event.left_out)
        case WorkspaceChanged():
            state = _with(state, changes=state.changes.append(event))
            return state if event.outside else _changed(state, event)
        case Rewound():
            return _rewound(state, event)
        case RunFinished():
            return _with(
                state,
                stop=event.reason,
                status=event.status,
                answer=event.answer,
                detail=event.detail,
                error=event.error,
                place=event.place,
            )
        case _:
            return state


def fold_all(events: Iterable[Event], state: AgentState | None = None) -> AgentState:
    """The state after many events."""
    state = state or AgentState()
    for event in events:
        state = fold(state, event)
    return state


def _sum(known: float | None, more: float | None) -> float | None:
    return None if known is None or more is None else known + more


def _said(state: AgentState, *messages: Message) -> AgentState:
    history, view = state.history, state.view
    for message in messages:
        history, view = history.append(message), view.append(message)
    return _with(state, history=history, view=view)


def _changed_model(state: AgentState) -> AgentState:
    """What was said so far is read by another model from here on."""
    return _with(state, view=History(without_thinking(state.view)), foreign=len(state.history))


def _viewed(state: AgentState, tokens: int) -> AgentState:
    """The view made anew, after a compaction or its undoing."""
    return _with(state, view=History(shown(state.said, state.replaced)), context_tokens=tokens)


def _marked(state: AgentState, *, turn: bool = False) -> AgentState:
    mark = _with(state, marks=History(), undone=(), turn=turn)
    return _with(state, marks=state.marks.append(mark))


def _changed(state: AgentState, event: WorkspaceChanged) -> AgentState:
    known = set(state.files_changed)
    new = [
        path
        for path in sorted({*event.before, *event.after})
        if path not in known and (event.after.get(path) or event.before[path])[:3] != "dir"
    ]
    return _with(state, files_changed=(*state.files_changed, *new)) if new else state


def _rewound(state: AgentState, event: Rewound) -> AgentState:
    """Another state of the same session; what was used stays used."""
    if event.redo:
        target, marks = state.undone[0].state, state.undone[0].state.marks
        undone = state.undone[1:]
    else:
        undone = (Undone(_with(state, undone=()), event), *state.undone)
        if event.messages:
            target, marks = state.marks[event.mark], state.marks.upto(event.mark + 1)
            if not (event.before or event.after):  # the files stay as they are
                target = _with(target, changes=state.changes, trees=state.trees)
        else:
            moved = WorkspaceChanged(state.step, event.before, event.after)
            target, marks = _with(state, changes=state.changes.append(moved)), state.marks
    if target.model != state.model:
        target = _changed_model(target)
    return _with(
        target,
        marks=marks,
        undone=undone,
        turn=False,
        trees=tuple(tree for tree in target.trees if tree[0] <= len(target.changes)),
        **{name: getattr(state, name) for name in _NEVER_UNDONE},
        running_step=state.step,
    )


_NEVER_UNDONE = (
    *("session_id", "workspace", "model", "mode", "sandbox", "records", "step", "usage"),
    *("cost_usd", "before", "retries", "tool_calls"),
)


def _add_result(state: AgentState, result: ToolResult) -> AgentState:
    results = (*state.results, result)
    purpose = state.started.get(result.call_id)
    changes = purpose == EDIT and result.outcome is Outcome.OK
    known = state.files_changed
    new_paths = tuple(p for p in result.paths if changes and p not in known)
    progress = state.progress
    if purpose:
        progress = after(progress, ToolKind(purpose), result.outcome)
    state = _with(
        state,
        results=results,
        files_changed=known + new_paths,
        progress=progress,
        plan=tuple(result.data.get(PLAN, state.plan)),
        step_results=(*state.step_results, result),
    )
    if len(results) < len(state.pending):
        return state
    # Calls may end in any order; the history has their results in the order of the calls.
    by_id = {result.call_id: result for result in results}
    state = _said(state, *(tool(by_id[call.id]) for call in state.pending))
    return _with(state, pending=(), results=(), started={})
