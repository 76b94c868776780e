"""The events of a run: one stream that the screen, the journal and the traces all read.

Durable events form the journal, and folding them gives the state (``agentcli.agent.folding``).
Transient events (deltas, progress, stages) only show what is going on; a durable event follows when
what they announce is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from agentcli.errors import Place
from agentcli.llm.client import StreamEvent
from agentcli.messages import FinishReason, Message, ToolCall, ToolResult, Usage
from agentcli.tools.base import ASKED


class Phase(StrEnum):
    """The phase of the work, as the user sees it."""

    EXPLORE = "explore"
    DISCOVER = "discover"
    EDIT = "edit"
    VALIDATE = "validate"


class Stage(StrEnum):
    """The part of a step that the kernel is in."""

    OBSERVE = "observe"
    DECIDE = "decide"
    ACT = "act"
    REDUCE = "reduce"
    CRITIC = "critic"
    CHECK_STOP = "check_stop"


class Status(StrEnum):
    """The outcome of a run."""

    SOLVED = "solved"
    UNSOLVED = "unsolved"
    STOPPED = "stopped"
    INVALID = "invalid"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StopReason(StrEnum):
    """Why a run ended."""

    FINAL = "final"
    SUCCESS = "success"
    AGENT_CONDITION = "agent_condition"
    ENV_TERMINAL = "env_terminal"
    CRITIC_STOP = "critic_stop"
    STAGNATION = "stagnation"
    DECLINED = "declined"
    TRIES_USED_UP = "tries_used_up"
    BUDGET_STEPS = "budget_steps"
    BUDGET_TIME = "budget_time"
    BUDGET_TOKENS = "budget_tokens"
    BUDGET_COST = "budget_cost"
    BUDGET_TOOLS = "budget_tools"
    TASK_VALIDATION_FAILED = "task_validation_failed"
    PROVIDER_FAILED = "provider_failed"
    ENV_CAPABILITY_MISMATCH = "env_capability_mismatch"
    UNRECOVERABLE_ERROR = "unrecoverable_error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SessionStarted(Event):
    """A session starts, or continues in a new process. ``tools`` are ``name@version``.

    ``network`` is what commands can reach: none, loopback, allow (listed domains) or full.
    ``config`` is a digest of all settings; ``seed`` is the sampling seed.
    """

    session_id: str
    workspace: str
    model: str
    mode: str
    sandbox: str
    tools: tuple[str, ...]
    version: str
    network: str = "none"
    config: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TaskGiven(Event):
    """The user gave a task; ``checks`` are shell commands that must succeed at the end.

    If ``text`` is empty, the checks are added to the current task. ``limits`` are the fields of
    ``RunLimits`` that later runs of the session keep.
    """

    text: str
    checks: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MessageAdded(Event):
    """A system or user message was added to the history.

    ``mode`` is the mode it announces; ``own`` tells that agentcli wrote it, not the user.
    """

    message: Message
    mode: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class PreflightIssue(Event):
    """A problem with the task, found before its first step."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step starts; steps are numbered from 1."""

    step: int


@dataclass(frozen=True, slots=True)
class ModelAnswered(Event):
    """The model's whole answer was added to the history. Times in seconds.

    ``cost_usd`` is in US dollars, here and elsewhere; None if it is not known.
    """

    step: int
    message: Message
    finish_reason: FinishReason
    usage: Usage
    first_token_s: float
    duration_s: float
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Decided(Event):
    """The agent's own code decided in place of the model; the message was added to the history."""

    step: int
    message: Message


@dataclass(frozen=True, slots=True)
class BranchTaken(Event):
    """One of several candidates was taken; ``chosen`` is its index."""

    step: int
    chosen: int
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class AnswerRejected(Event):
    """An unusable answer was left out of the history; its tokens count."""

    step: int
    reason: str
    usage: Usage
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """An attempt failed and is retried after ``delay_s`` seconds. Attempts are numbered from 1.

    ``tool`` and ``call_id`` name the call in the stage ACT; ``usage`` is what the model reported
    for the part of its answer that arrived.
    """

    step: int
    stage: Stage
    attempt: int
    delay_s: float
    error: str
    tool: str = ""
    call_id: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class ModelChanged(Event):
    """Another model answers from here on; ``reason`` says why the previous one was replaced."""

    step: int
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModeChanged(Event):
    """From here on, calls are permitted by the rules of another mode."""

    mode: str


@dataclass(frozen=True, slots=True)
class ToolStarted(Event):
    """A tool is about to run; the event is recorded before it does.

    ``purpose`` is set for a command line that does the work of another kind of tool: that kind.
    """

    step: int
    call: ToolCall
    tool_kind: str
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class ToolFinished(Event):
    """A call has a result. Every call gets one."""

    step: int
    result: ToolResult
    duration_s: float = 0.0

    @property
    def command_s(self) -> float:
        """Seconds that the command itself took.

        For other tools, ``duration_s`` without the time spent waiting for the user's approval.
        """
        return _seconds(self.result.data.get("duration_s"), self.duration_s - self.asked_s)

    @property
    def asked_s(self) -> float:
        """Seconds spent waiting for the user's approval."""
        return _seconds(self.result.data.get(ASKED), 0.0)


def _seconds(told: object, otherwise: float) -> float:
    """Read a number of seconds from a tool's data, which may hold anything."""
    if isinstance(told, int | float) and 0 <= told < float("inf"):
        return float(told)
    return otherwise


@dataclass(frozen=True, slots=True)
class PhaseChanged(Event):
    """The work moved from one phase to another."""

    step: int
    previous: Phase
    phase: Phase


@dataclass(frozen=True, slots=True)
class CandidateTried(Event):
    """An edit was tried and checked on a copy of the workspace.

    ``failures`` counts the tests that fail after it; None if it broke more than tests.
    """

    step: int
    call: ToolCall
    failures: int | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class WorkspaceTaken(Event):
    """All files were captured before a run's first tool; ``tree`` is the digest of their list.

    ``left_out`` names what was not captured: files that the project ignores, and caches.
    """

    tree: str
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkspaceChanged(Event):
    """Tools, commands included, changed files; with ``outside``, something else did meanwhile.

    ``before`` and ``after`` map paths to their entries (``environments/entries.py``); a path in
    only one of them was created or removed.
    """

    step: int
    before: Mapping[str, str]
    after: Mapping[str, str]
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Rewound(Event):
    """The session went back to a mark (``AgentState.marks``), or with ``redo`` forward again.

    ``before`` and ``after`` are what that changed in files. Steps, usage and cost are not undone.
    """

    mark: int
    before: Mapping[str, str]
    after: Mapping[str, str]
    redo: bool = False
    messages: bool = True


@dataclass(frozen=True, slots=True)
class Reviewed(Event):
    """A critic said something about a step."""

    step: int
    critic: str
    judgement: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered(Event):
    """A stage failed and the step starts over; ``count`` counts recoveries in this run from 1."""

    step: int
    stage: Stage
    error: str
    count: int
    limit: int


@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    """A step is complete."""

    step: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class CheckFinished(Event):
    """One of the task's checks has run, after the model said it was done."""

    command: str
    passed: bool
    exit_code: int | None
    output: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something the user should know that does not end the run."""

    text: str


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The run ended; emitted exactly once. ``detail`` explains the reason where needed.

    ``error`` is the class of the error that ended the run, and ``place`` where it arose.
    """

    reason: StopReason
    status: Status
    answer: str
    detail: str = ""
    exit_code: int = 0
    error: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The messages ``first`` to ``end`` (exclusive) of the history, and what is shown for them.

    If ``message`` is None, nothing is shown. Messages are numbered from 0.
    """

    first: int
    end: int
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class Compacted(Event):
    """From here on the model is shown less; the history itself stays complete.

    ``replaced`` lists, in order, everything that is no longer shown in full; it supersedes the list
    of an earlier compaction. ``passes`` names the processors that made the conversation shorter.
    Tokens are those of a whole request.
    """

    step: int
    cause: str
    tokens_before: int
    tokens_after: int
    passes: tuple[str, ...]
    replaced: tuple[Replaced, ...]


@dataclass(frozen=True, slots=True)
class CompactionUndone(Event):
    """The model is shown again what it saw before the last compaction."""

    step: int


@dataclass(frozen=True, slots=True)
class WindowLearnt(Event):
    """The provider refused a request as too long: from here on, at most ``tokens`` are sent."""

    step: int
    tokens: int


@dataclass(frozen=True, slots=True)
class PrefixBroken(Event):
    """A request does not start like the previous one; about ``tokens_lost`` are processed again.

    ``cause`` is model, tools, prompt, compaction or history; or expired, if nothing has changed but
    the provider no longer had the prefix cached. A local model's cache gives its cause in words.
    """

    step: int
    cause: str
    tokens_lost: int


@dataclass(frozen=True, slots=True)
class SoftCapReached(Event):
    """A soft cap was reached; emitted once per run for each ``cap``."""

    step: int
    cap: str
    used: float
    limit: float


@dataclass(frozen=True, slots=True)
class ModelUsed(Event):
    """A model was asked for something outside the steps, such as a summary; its tokens count."""

    step: int
    purpose: str
    usage: Usage
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Delta(Event):
    """A piece of the answer as it streams."""

    durable: ClassVar[bool] = False
    step: int
    delta: StreamEvent


@dataclass(frozen=True, slots=True)
class StreamReset(Event):
    """What was streamed in this step so far is void; the answer starts over."""

    durable: ClassVar[bool] = False
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckStarted(Event):
    """One of the task's checks starts; ``round`` counts from 1 to ``rounds``."""

    durable: ClassVar[bool] = False
    command: str
    round: int
    rounds: int


@dataclass(frozen=True, slots=True)
class ToolProgress(Event):
    """Output of a running tool; ``stream`` is stdout or stderr."""

    durable: ClassVar[bool] = False
    call_id: str
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """The kernel enters a stage."""

    durable: ClassVar[bool] = False
    step: int
    stage: Stage


def usage_of(event: Event) -> Usage:
    """The tokens that an event reports, whether or not the answer was used."""
    match event:
        case ModelAnswered() | AnswerRejected() | RetryScheduled() | ModelUsed():
            return event.usage
    return Usage()


class EventLog(Protocol):
    """Records durable events before anything acts on them."""

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """Record one event; with ``sync``, wait until it would survive a power failure.

        The event is recorded before the first suspension, so cancellation cannot lose it.

        Raises:
            JournalError: it could not be recorded.
        """
        ...


class MemoryLog:
    """An event log in memory, for library use and tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """See ``EventLog.append``."""
        self.events.append(event)
