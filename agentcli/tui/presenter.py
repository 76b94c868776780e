"""Turns the kernel's events into transcript entries, for live runs and journals alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from agentcli.agent.events import (
    AnswerRejected,
    CandidateTried,
    CheckFinished,
    CheckStarted,
    Compacted,
    CompactionUndone,
    Delta,
    Event,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    ModelUsed,
    RetryScheduled,
    Rewound,
    RunFinished,
    SessionStarted,
    SoftCapReached,
    Stage,
    StageStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    StreamReset,
    TaskGiven,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
    WorkspaceChanged,
)
from agentcli.agent.folding import with_changes
from agentcli.agent.hooks import Hook
from agentcli.agent.state import AgentState
from agentcli.agent.stream import interrupted
from agentcli.llm.client import TextDelta, ThinkingDelta, ToolCallStart
from agentcli.messages import Image, Message, Outcome, Role, ToolCall, ToolResult, Usage
from agentcli.text import counted, one_line
from agentcli.tui.entries import (
    Answered,
    Checked,
    Entry,
    Level,
    Said,
    Thought,
    Told,
    TurnEnded,
    Used,
)
from agentcli.tui.numbers import short_number
from agentcli.wording import dollars, duration, model_changed, usage_line

_TAIL_BYTES = 16 * 1024


class View(Protocol):
    """Shows entries. The methods must not block; a slow view catches up on its own."""

    def added(self, entry: Entry) -> None:
        """An entry was appended."""
        ...

    def changed(self, entry: Entry) -> None:
        """An entry's fields have changed."""
        ...

    def grew(self, entry: Answered | Thought, text: str) -> None:
        """``text`` was appended to an entry's text."""
        ...

    def removed(self, entry: Entry) -> None:
        """An entry was removed."""
        ...

    def doing(self, what: str) -> None:
        """The current activity has changed; empty means that there is none."""
        ...


class Presenter:
    """Turns events into entries, in order.

    Attributes:
        outdated: Whether events before the first one were undone or redone, so that the entries
            must be read from the journal again.
    """

    def __init__(self, view: View) -> None:
        self.outdated = False
        self._view = view
        self._earlier = 0  # marks of the session before the first event
        self._calls: dict[str, Used] = {}
        self._entries: list[Entry] = []
        self._marks: list[int] = []  # number of entries at each of AgentState.marks
        self._undone: list[tuple[list[Entry], list[int]]] = []
        self._streamed: list[Entry] = []
        self._check: Checked | None = None
        self._mode: Told | None = None
        self._model = ""
        self._task: str | None = None
        self._turn = _Turn()
        self._thinking_since = 0.0

    def begin(self, marks: int) -> None:
        """Start anew where the session has this many marks (``AgentState.marks``)."""
        self.outdated, self._earlier = False, marks
        self._entries, self._marks, self._undone = [], [], []

    def present(self, event: Event) -> None:
        """Show one event."""
        match event:
            case SessionStarted(model=model):
                self._model, self._turn = model, _Turn()
            case TaskGiven(text=text) if text:
                self._marks.append(len(self._entries))
                self._undone.clear()
                self._task = text
                self._add(Said(text))
            case MessageAdded(message=message, own=False):
                self._message(message)
            case StepStarted():
                self._turn.steps += 1
            case StageStarted(stage=stage):
                if stage is Stage.DECIDE:
                    self._view.doing("waiting for the model")
            case Delta(delta=TextDelta(text)):
                self._grow(Answered, text)
                self._view.doing("writing")
            case Delta(delta=ThinkingDelta(text)):
                self._grow(Thought, text)
                self._view.doing("thinking")
            case Delta(delta=ToolCallStart(name=name)):
                self._view.doing(f"preparing {name}")
            case StreamReset():
                self._drop_streamed()
            case ModelAnswered():
                self._answered(event)
            case AnswerRejected(reason=reason):
                self._drop_streamed()
                self._turn.add(event.usage, event.cost_usd)
                self._tell(f"answer not used: {reason}", Level.WARNING)
            case RetryScheduled():
                self._retry(event)
            case StepFinished():
                self._marks.append(len(self._entries))
            case Rewound():
                self._rewound(event)
            case ModelChanged(model=model, reason=reason):
                if reason:
                    self._tell(model_changed(self._model, event), Level.WARNING)
                else:
                    self._tell(f"{model} answers from here on", Level.NOTE)
                self._model = model
            case ModelUsed(usage=tokens, cost_usd=cost):
                self._turn.add(tokens, cost)
            case ModeChanged(mode=mode):
                self._tell_mode(f"mode {mode}")
            case Compacted(tokens_before=before, tokens_after=after):
                saved = f"{short_number(before)} → {short_number(after)} tokens"
                self._tell(f"the conversation was shortened: {saved}", Level.NOTE)
            case CompactionUndone():
                self._tell("the conversation is whole again", Level.NOTE)
            case SoftCapReached(cap=cap, used=so_far):
                words = cap.replace("_", " ")
                self._tell(f"{words}: {so_far:g} so far; have a look", Level.WARNING)
            case CandidateTried():
                self._turn.tries += 1
                tries = counted(self._turn.tries, "edit")
                self._view.doing(f"trying on a copy: {tries} so far")
            case ToolStarted(call=call, tool_kind=kind):
                used = self._use(call)
                used.kind = kind or "run"
                self._view.changed(used)
                self._view.doing(f"running {call.name}")
            case ToolProgress(call_id=call_id, data=data):
                if running := self._calls.get(call_id):
                    running.output = (running.output + data)[-_TAIL_BYTES:]
                    self._view.changed(running)
            case ToolFinished(result=result) if self._is_of_past(result):
                pass
            case ToolFinished(result=result):
                used = self._use(ToolCall(result.call_id, result.name))
                used.result, used.duration_s = result, event.command_s
                if used.kind == "edit" and result.outcome is Outcome.OK:
                    self._turn.edited.update(dict.fromkeys(result.paths))
                self._view.changed(used)
                self._view.doing("working")
            case WorkspaceChanged(outside=False):
                self._turn.changed = with_changes(self._turn.changed, event)
            case CheckStarted(command=command):
                self._check = Checked(command)
                self._add(self._check)
                self._view.doing(f"checking: {one_line(command, 60)}")
            case CheckFinished():
                self._checked(event)
            case Warned(text):
                self._tell(text, Level.WARNING)
            case RunFinished():
                self._finished(event)

    # -- parts of the match ------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        if message.role is not Role.USER or self._task is None:
            return
        if message.text == self._task:
            self._task = ""  # TaskGiven has shown it; a later message may repeat the text
            return
        images = tuple(part.name or "image" for part in message.parts if isinstance(part, Image))
        self._add(Said(message.text, images))

    def _is_of_past(self, result: ToolResult) -> bool:
        """Whether a run that was cut off made this call, which ``entries_of`` has shown as such."""
        cut = result.outcome in (Outcome.CANCELLED, Outcome.SKIPPED)
        return cut and result.call_id not in self._calls

    def _answered(self, event: ModelAnswered) -> None:
        """Replace the streamed parts with the final message that the journal records."""
        message, streamed = event.message, list(self._streamed)
        self._turn.add(event.usage, event.cost_usd)
        thoughts = [entry for entry in streamed if isinstance(entry, Thought)]
        texts = [entry for entry in streamed if isinstance(entry, Answered)]
        if message.thinking.strip() and not thoughts:
            self._add(Thought(message.thinking))
        for thought in thoughts:
            thought.streaming = False
            thought.seconds = thought.seconds or event.duration_s
            self._view.changed(thought)
        if message.text.strip() and not texts:
            self._add(Answered(message.text))
        for text in texts:
            text.streaming = False
            if len(texts) == 1:
                text.text = message.text
            self._view.changed(text)
        self._streamed.clear()
        for call in message.calls:
            self._use(call)

    def _retry(self, event: RetryScheduled) -> None:
        wait = duration(event.delay_s)
        self._view.doing(f"waiting {wait} after an error")
        what = f"{event.tool} failed" if event.tool else "the model's server failed"
        error = one_line(event.error, 200)
        self._tell(f"{what}; attempt {event.attempt + 1} in {wait}: {error}", Level.WARNING)

    def _checked(self, event: CheckFinished) -> None:
        check = self._check
        if check is None or check.command != event.command:
            check = Checked(event.command)
            self._add(check)
        check.result, self._check = event, None
        self._view.changed(check)

    def _finished(self, event: RunFinished) -> None:
        for entry in self._streamed:  # keep an answer that was cut short
            if isinstance(entry, Answered | Thought):
                entry.streaming = False
                self._view.changed(entry)
        self._streamed.clear()
        self._view.doing("")
        if event.status is Status.FAILED:
            self._tell(event.detail or str(event.reason), Level.ERROR)
        elif event.reason not in (StopReason.FINAL, StopReason.CANCELLED, StopReason.DECLINED):
            self._tell(f"stopped: {_reason(event)}", Level.WARNING)
        elif event.status is Status.UNSOLVED and event.detail:
            self._tell(event.detail, Level.WARNING)
        self._add(
            TurnEnded(
                self._turn.facts(event.status),
                event.status is Status.SOLVED,
                self._turn.files,
            )
        )

    # -- entries -----------------------------------------------------------------------------

    def _rewound(self, event: Rewound) -> None:
        """Remove the undone entries, or restore them on redo."""
        if event.redo and self._undone:
            entries, marks = self._undone.pop()
            for entry in entries:
                self._add(entry)
            self._marks = marks
        elif event.redo or (event.messages and event.mark < self._earlier):
            self.outdated = True
        elif event.messages and (mark := event.mark - self._earlier) < len(self._marks):
            count = self._marks[mark]
            self._undone.append((self._entries[count:], self._marks))
            self._marks = self._marks[: mark + 1]
            while len(self._entries) > count:
                self._view.removed(self._entries.pop())
        else:
            self._undone.append(([], self._marks))
        files = len({*event.before, *event.after})
        what = "redone" if event.redo else "undone"
        restored = f"{counted(files, 'file')} restored" if files else "it had changed no file"
        self._view.added(Told(f"{what}: {restored}"))

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._view.added(entry)

    def _tell(self, text: str, level: Level) -> None:
        self._add(Told(text, level))

    def _tell_mode(self, text: str) -> None:
        """Show the mode, in place of one that was left before anything else happened."""
        if self._mode is not None and self._entries[-1:] == [self._mode]:
            self._mode.text = text
            self._view.changed(self._mode)
            return
        self._mode = Told(text, Level.NOTE)
        self._add(self._mode)

    def _use(self, call: ToolCall) -> Used:
        used = self._calls.get(call.id)
        if used is None or used.result is not None:
            used = self._calls[call.id] = Used(call)
            self._add(used)
        elif len(call.arguments) > len(used.call.arguments):
            used.call = replace(used.call, arguments=call.arguments)
        return used

    def _grow(self, cls: type[Answered] | type[Thought], text: str) -> None:
        last = self._streamed[-1] if self._streamed else None
        if not isinstance(last, cls):
            if not text.strip():
                return
            if isinstance(last, Thought):
                last.streaming = False
                last.seconds = time.monotonic() - self._thinking_since
                self._view.changed(last)
            self._thinking_since = time.monotonic()
            last = cls(streaming=True)
            self._streamed.append(last)
            self._add(last)
        assert isinstance(last, Answered | Thought)
        last.text += text
        self._view.grew(last, text)

    def _drop_streamed(self) -> None:
        for entry in self._streamed:
            self._entries.remove(entry)
            self._view.removed(entry)
        self._streamed.clear()


class TUIHook(Hook):
    """Passes every event to a presenter, then the event and the new state to ``then``."""

    def __init__(
        self, presenter: Presenter, then: Callable[[Event, AgentState], None] | None = None
    ) -> None:
        self._presenter = presenter
        self._then = then

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Present the event."""
        self._presenter.present(event)
        if self._then is not None:
            self._then(event, state)


class Collected:
    """A view that only collects the entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def added(self, entry: Entry) -> None:
        self.entries.append(entry)

    def changed(self, entry: Entry) -> None: ...

    def grew(self, entry: Entry, text: str) -> None: ...

    def removed(self, entry: Entry) -> None:
        self.entries.remove(entry)

    def doing(self, what: str) -> None: ...


def entries_of(events: Iterable[Event]) -> list[Entry]:
    """The entries of past events. Calls without a result were cut off, as by a kill."""
    collected = Collected()
    presenter = Presenter(collected)
    for event in events:
        presenter.present(event)
    for entry in collected.entries:
        if isinstance(entry, Used) and entry.result is None:
            entry.result = interrupted(entry.call, bool(entry.kind))
    return collected.entries


@dataclass
class _Turn:
    """Running totals of the current turn."""

    since: float = field(default_factory=time.monotonic)
    steps: int = 0
    tries: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    edited: dict[str, None] = field(default_factory=dict)
    changed: AgentState = field(default_factory=AgentState)

    @property
    def files(self) -> tuple[str, ...]:
        """What the turn changed. Without snapshots, only what edits name is known."""
        named = [path for path in self.edited if path not in self.changed.at_first]
        return (*named, *self.changed.files_changed)

    def add(self, usage: Usage, cost_usd: float | None) -> None:
        self.usage += usage
        known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = self.cost_usd + cost_usd if known else None  # type: ignore[operator]

    def facts(self, status: Status) -> tuple[str, ...]:
        facts = ["interrupted"] if status is Status.CANCELLED else []
        facts += [counted(self.steps, "step"), usage_line(self.usage)]
        if self.cost_usd:
            facts.append(dollars(self.cost_usd))
        seconds = time.monotonic() - self.since
        if seconds >= 1:
            facts.append(duration(seconds))
        return tuple(facts)


def _reason(event: RunFinished) -> str:
    words = str(event.reason).replace("_", " ")
    return f"{words}: {event.detail}" if event.detail else words
