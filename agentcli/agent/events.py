"""The events of a run: one stream that the screen, the journal and the traces all read.

Durable events form the journal, and folding them gives the state (``agentcli.agent.folding``).
Transient ones (deltas, progress, stages) only show what is going on: what they announce is repeated
by a durable event once it is complete.
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
    """Where the work is, as its user sees it."""

    EXPLORE = "explore"
    DISCOVER = "discover"
    EDIT = "edit"
    VALIDATE = "validate"


class Stage(StrEnum):
    """Where the kernel is within one step."""

    OBSERVE = "observe"
    DECIDE = "decide"
    ACT = "act"
    REDUCE = "reduce"
    CRITIC = "critic"
    CHECK_STOP = "check_stop"


class Status(StrEnum):
    """What a run came to."""

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
    """A session opens, or goes on in a new process. ``tools`` are ``name@version``.

    ``network`` is what commands reach: none, loopback, allow (listed domains) or full; ``config``
    is a digest of all settings, ``seed`` that of the sampling.
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
    """What the user wants; ``checks`` are shell commands that must succeed at the end.

    Without a text, the task stays and the checks are added to it. ``limits`` are the fields of
    ``RunLimits`` that a later run of the session goes on with.
    """

    text: str
    checks: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MessageAdded(Event):
    """A system or user message joins the history; ``mode`` is the mode that it tells of."""

    message: Message
    mode: str = ""


@dataclass(frozen=True, slots=True)
class PreflightIssue(Event):
    """Something that stands in the way of a task, found before its first step."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step begins; steps count from 1."""

    step: int


@dataclass(frozen=True, slots=True)
class ModelAnswered(Event):
    """The model's whole answer, which joins the history. Times in seconds.

    ``cost_usd`` in US dollars, here and elsewhere: None where it is not known.
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
    """The agent's own code decided in place of the model; the message joins the history."""

    step: int
    message: Message


@dataclass(frozen=True, slots=True)
class BranchTaken(Event):
    """Of several candidates one was taken: ``chosen`` is its number, from 0."""

    step: int
    chosen: int
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class AnswerRejected(Event):
    """An answer that cannot be used; it stays out of the history, its tokens count."""

    step: int
    reason: str
    usage: Usage
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """An attempt failed and another follows after ``delay_s`` seconds. Attempts count from 1.

    ``tool`` and ``call_id`` name the call in the stage ACT; ``usage`` is what a model had counted
    for the part of its answer that came.
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
    """Another model answers from here on; ``reason`` is what ended the one before."""

    step: int
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModeChanged(Event):
    """From here on calls are permitted as another mode says."""

    mode: str


@dataclass(frozen=True, slots=True)
class ToolStarted(Event):
    """A tool is about to run; durable before it does.

    ``purpose`` is the kind of tool that would do the same, where a command line says so.
    """

    step: int
    call: ToolCall
    tool_kind: str
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class ToolFinished(Event):
    """A call has its result. Every call gets one."""

    step: int
    result: ToolResult
    duration_s: float = 0.0

    @property
    def command_s(self) -> float:
        """Seconds that a command itself took; of what is no command ``duration_s`` without those
        in which the user was asked about it."""
        return _seconds(self.result.data.get("duration_s"), self.duration_s - self.asked_s)

    @property
    def asked_s(self) -> float:
        """Seconds for which the user was asked about it."""
        return _seconds(self.result.data.get(ASKED), 0.0)


def _seconds(told: object, otherwise: float) -> float:
    """What a tool told of itself, which may be anything."""
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
    """An edit was made on a copy of the workspace and checked there.

    ``failures`` counts the tests that fail after it; None: it broke more than tests.
    """

    step: int
    call: ToolCall
    failures: int | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class WorkspaceTaken(Event):
    """All files as they are before a run's first tool; ``tree`` is the digest of their list.

    ``left_out`` is not in it: what the project ignores, and caches.
    """

    tree: str
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkspaceChanged(Event):
    """What tools did to files, commands included; ``outside``: what somebody else did meanwhile.

    Both map paths to what stood and stands there (``environments/entries.py``); a path in only
    one of them was made or removed.
    """

    step: int
    before: Mapping[str, str]
    after: Mapping[str, str]
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Rewound(Event):
    """The session goes back to a mark (``AgentState.marks``), or with ``redo`` forth again.

    ``before`` and ``after`` are what that did to files. Steps, usage and cost go on counting.
    """

    mark: int
    before: Mapping[str, str]
    after: Mapping[str, str]
    redo: bool = False
    messages: bool = True


@dataclass(frozen=True, slots=True)
class Reviewed(Event):
    """What a critic said of a step, where it said anything."""

    step: int
    critic: str
    judgement: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered(Event):
    """A stage failed, and the step is begun anew; ``count`` is of this run, from 1."""

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
    """One of the task's checks ran after the model was done."""

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
    """The end, exactly once. ``detail`` says more where the reason alone does not.

    ``error`` is the class of the error that ended it, ``place`` where that arose.
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
    """Messages of the history from ``first`` to before ``end``, and what is shown for them.

    None shows nothing. Numbers count from 0.
    """

    first: int
    end: int
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class Compacted(Event):
    """From here on the model is shown less; the history itself stays whole.

    ``replaced`` is all that is not shown as it was said, in order; it takes the place of what an
    earlier compaction replaced. ``passes`` names the processors that made it shorter. Tokens are
    those of a whole request.
    """

    step: int
    cause: str
    tokens_before: int
    tokens_after: int
    passes: tuple[str, ...]
    replaced: tuple[Replaced, ...]


@dataclass(frozen=True, slots=True)
class CompactionUndone(Event):
    """The model is shown again what it was shown before the last compaction."""

    step: int


@dataclass(frozen=True, slots=True)
class WindowLearnt(Event):
    """The provider found a request too long: the model is sent no more ``tokens`` than these."""

    step: int
    tokens: int


@dataclass(frozen=True, slots=True)
class PrefixBroken(Event):
    """A request does not begin as the one before: ``tokens_lost`` (about) are read anew.

    ``cause``: model, tools, prompt, compaction, history, or expired where nothing has changed and
    the provider no longer held it. A local model's own cache tells its cause in words.
    """

    step: int
    cause: str
    tokens_lost: int


@dataclass(frozen=True, slots=True)
class SoftCapReached(Event):
    """Something was used so much that one should look; fires once a run for each ``cap``."""

    step: int
    cap: str
    used: float
    limit: float


@dataclass(frozen=True, slots=True)
class ModelUsed(Event):
    """A model was asked for something beside the steps, such as a summary: its tokens count."""

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
    """What was streamed in this step so far is void: it comes again from the start."""

    durable: ClassVar[bool] = False
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckStarted(Event):
    """One of the task's checks begins; ``round`` counts from 1 to ``rounds``."""

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
    """The tokens that an event tells of, whether its answer was used or not."""
    match event:
        case ModelAnswered() | AnswerRejected() | RetryScheduled() | ModelUsed():
            return event.usage
    return Usage()


class EventLog(Protocol):
    """Where durable events go before anything that follows from them happens."""

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """Record one event; with ``sync``, wait until a loss of power cannot undo it.

        The event is recorded before this first gives up control, also when it is cancelled.

        Raises:
            JournalError: it could not be recorded.
        """
        ...


class MemoryLog:
    """An event log in memory, for library use and tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def append(self, event: Event, *, sync: bool = False) -> None:
        """Keep the event."""
        self.events.append(event)
