"""The state of a session: an immutable value, computed only from its durable events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from agentcli.agent.events import (
    CheckFinished,
    Compacted,
    Phase,
    Replaced,
    Rewound,
    Status,
    StopReason,
    WorkspaceChanged,
)
from agentcli.agent.phase import Progress
from agentcli.errors import Place
from agentcli.messages import (
    Message,
    ToolCall,
    ToolResult,
    Usage,
    without_thinking,
)
from agentcli.tools.base import ToolKind

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

_TOLD = {(Status.SOLVED, StopReason.FINAL), (Status.CANCELLED, StopReason.CANCELLED)}

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


def ending_words(status: Status, reason: StopReason) -> str:
    """The status of a run, with the stop reason unless the status implies it."""
    return status.value if (status, reason) in _TOLD else f"{status.value} · {reason.value}"


def exit_code(reason: StopReason, status: Status) -> int:
    """The process exit code for the end of a run. Termination by a signal has its own."""
    if status is Status.FAILED:
        return _EXIT_OF_FAILURE[reason]
    return _EXIT_OF[status]


class History(Generic[T]):
    """An append-only sequence that shares its storage with the histories it grew from.

    Appending to the newest history costs one list append. Appending to an older one copies the
    list, so that no history ever changes after it was made.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._length = len(self._items)

    def append(self, item: T) -> History[T]:
        """Return a history with one more item."""
        grown: History[T] = History.__new__(History)
        grown._items = (
            self._items if len(self._items) == self._length else self._items[: self._length]
        )
        grown._items.append(item)
        grown._length = self._length + 1
        return grown

    def since(self, start: int) -> list[T]:
        """The items from ``start`` on; a negative ``start`` counts from the end."""
        first = start if start >= 0 else max(0, self._length + start)
        return self._items[first : self._length]

    def upto(self, length: int) -> History[T]:
        """The history of the first ``length`` items; it shares the storage."""
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
    """One complete step: the decision, its results, and what they took."""

    step: int
    phase: Phase
    decision: Message | None
    results: tuple[ToolResult, ...]
    usage: Usage
    retries: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What has been used; cost in US dollars, None if it is not known."""

    steps: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0


@dataclass(frozen=True)  # without slots, so that ``folding`` can copy its ``__dict__``
class AgentState:
    """Everything known about a session. ``step`` is the last complete step, 0 before the first."""

    session_id: str = ""
    workspace: str = ""
    model: str = ""
    mode: str = ""
    told_mode: str = ""
    """The mode that was last announced to the model."""
    sandbox: str = ""
    task: str = ""
    checks: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    history: History[Message] = field(default_factory=History)
    view: History[Message] = field(default_factory=History)
    """The history as the model sees it: compacted, without the thinking of other models."""
    compactions: tuple[Compacted, ...] = ()
    foreign: int = 0
    """How many messages of the history are older than the last change of model."""
    windows: Mapping[str, int] = field(default_factory=dict)
    """The longest request in tokens, by model, for models that refused a longer one."""
    context_tokens: int = 0
    """What the last request and its answer took of the context window."""
    records: History[StepRecord] = field(default_factory=History)
    step: int = 0
    running_step: int = 0
    phase: Phase = Phase.EXPLORE
    progress: Progress = field(default_factory=Progress)
    """The progress after all finished calls; while others run, ``phase`` may be ahead of it."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    """US dollars spent in this run; None once the price of a request is not known."""
    before: Totals = field(default_factory=Totals)
    """What the session had used when this run began; limits apply to one run."""
    retries: int = 0
    rejected: int = 0
    """Unusable answers in a row."""
    recoveries: int = 0
    """In this run."""
    tool_calls: int = 0
    plan: tuple[str, ...] = ()
    """The steps of the last plan for the task."""
    pending: tuple[ToolCall, ...] = ()
    """Calls of the last answer, until all have a result."""
    results: tuple[ToolResult, ...] = ()
    """Results of the pending calls, in the order they arrived."""
    started: Mapping[str, str] = field(default_factory=dict)
    """Ids of pending calls whose tool has started, with the purpose of each (a tool kind)."""
    files_changed: tuple[str, ...] = ()
    at_first: Mapping[str, str | None] = field(default_factory=dict)
    """What each file that changed since the task began was before; None if it was not there."""
    changes: History[WorkspaceChanged] = field(default_factory=History)
    """Changes of files that were not undone."""
    trees: tuple[tuple[int, str], ...] = ()
    """Lists of all files, each with the number of changes before it."""
    left_out: tuple[str, ...] = ()
    """What those lists leave out."""
    marks: History[AgentState] = field(default_factory=History, compare=False, repr=False)
    """States the session can go back to: before each task and after each step."""
    turn: bool = False
    """Of a mark: whether it is the state before a task, not after a step."""
    undone: tuple[Undone, ...] = field(default=(), compare=False, repr=False)
    """What can be redone, the last undone first."""
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
        """The whole history, without the thinking of models other than the current one."""
        own = without_thinking(self.history.since(0)[: self.foreign])
        return (*own, *self.history.since(self.foreign))

    @property
    def replaced(self) -> tuple[Replaced, ...]:
        """The stretches of the history that the model does not see in full."""
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
    """A state that was left by going back, and what that changed in files."""

    state: AgentState
    event: Rewound
