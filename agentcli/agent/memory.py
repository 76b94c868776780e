"""Memories remind a model of steps that it no longer sees in full.

There is nothing to remind it of until the conversation is compacted. A reminder is added to the
history as a message, so that the journal has it and the cached prefix stays valid. When a session
is resumed, the memory is rebuilt from the state's records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentcli.agent.bm25 import Index
from agentcli.agent.events import MessageAdded
from agentcli.agent.processors.results import LeaveOutImages
from agentcli.agent.second_thoughts import PASS
from agentcli.agent.state import AgentState, StepRecord
from agentcli.agent.stream import Stream
from agentcli.errors import ConfigError
from agentcli.messages import Message, Role, ToolResult, user
from agentcli.text import clip, one_line, truncate

MARK = "[from memory"
_RESULT_CHARS = 600
_OTHER_REASONS = frozenset({PASS, LeaveOutImages().name})


class Memory(Protocol):
    """Collects the records of steps and is asked for a reminder before the model decides."""

    def append(self, record: StepRecord) -> None:
        """Add the record of a step."""
        ...

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """The reminder to show the model now; empty for none.

        ``observation`` is what the model has not seen yet: the user's messages and tool results.
        """
        ...


class _Reminding:
    """Knows which records are out of the model's sight; reminds once after each compaction."""

    def __init__(self) -> None:
        self._records: list[StepRecord] = []
        self._reminded_at = 0

    def append(self, record: StepRecord) -> None:
        """See ``Memory.append``."""
        self._records.append(record)

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """See ``Memory.retrieve``."""
        count = _compactions(state)
        if count == self._reminded_at:
            return ""
        self._reminded_at = count
        if not count or any(_is_reminder(message) for message in state.view):
            return ""  # already reminded before the session was resumed
        gone = self._out_of_sight(state)
        return self._reminder(gone) if gone else ""

    def _reminder(self, gone: Sequence[StepRecord]) -> str:
        raise NotImplementedError

    def _out_of_sight(self, state: AgentState) -> list[StepRecord]:
        seen: set[int] = set()
        for message in state.view:
            seen.add(id(message))
            seen.update(id(part) for part in message.parts if isinstance(part, ToolResult))
        return [
            record
            for record in self._records
            if any(id(result) not in seen for result in record.results)
            or (not record.results and record.decision and id(record.decision) not in seen)
        ]


def _compactions(state: AgentState) -> int:
    """How often something was left out for want of room, and for no other reason."""
    return sum(_OTHER_REASONS.isdisjoint(one.passes) for one in state.compactions)


class WindowMemory(_Reminding):
    """The last ``n`` steps out of sight, with the beginning and end of their results."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self._n = n

    def _reminder(self, gone: Sequence[StepRecord]) -> str:
        return "\n".join([f"{MARK}: steps made before]", *map(_whole, gone[-self._n :])])


class SummaryMemory(_Reminding):
    """One line for each step out of sight; beyond ``chars`` in all, the middle is left out."""

    def __init__(self, chars: int = 6000) -> None:
        super().__init__()
        self._chars = chars

    def _reminder(self, gone: Sequence[StepRecord]) -> str:
        lines = "\n".join(map(_line, gone))
        return f"{MARK}: what was done before, step by step]\n{truncate(lines, self._chars)}"


class SearchMemory(_Reminding):
    """The ``n`` steps out of sight that are most relevant to the current work.

    It searches after each compaction and after each message of the user. Steps that are in sight,
    or that it recalled since the last compaction, are not repeated. ``least`` is the minimum BM25
    score.
    """

    def __init__(self, n: int = 3, least: float = 2.0) -> None:
        super().__init__()
        self._n = n
        self._least = least
        self._index = Index()
        self._seen = 0
        self._recalled: set[int] = set()

    def append(self, record: StepRecord) -> None:
        """See ``Memory.append``."""
        super().append(record)
        self._index.add(_whole(record, chars=20_000))

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """See ``Memory.retrieve``."""
        before, self._seen = self._seen, len(state.history)
        count = _compactions(state)
        asked = [m.text for m in state.history.since(before) if _by_user(m)]
        if count == self._reminded_at and not asked:
            return ""
        if count != self._reminded_at:
            self._recalled.clear()
            self._reminded_at = count
        if not count:
            return ""
        gone = {id(record) for record in self._out_of_sight(state)}
        question = " ".join([state.task, *asked, clip(observation, 2000)])
        scores = self._index.scores(question)
        best = [
            (score, record)
            for score, record in zip(scores, self._records, strict=True)
            if score >= self._least and id(record) in gone and record.step not in self._recalled
        ]
        best.sort(key=lambda pair: -pair[0])
        found = sorted((record for _, record in best[: self._n]), key=lambda record: record.step)
        self._recalled.update(record.step for record in found)
        if not found:
            return ""
        return "\n".join([f"{MARK}: earlier steps that may matter now]", *map(_whole, found)])


class Recalling:
    """Feeds a session's steps to a memory, and the memory's reminders to the model."""

    def __init__(self, memory: Memory | None, stream: Stream) -> None:
        self._memory = memory
        self._stream = stream
        if memory is not None:
            for record in stream.state.records:
                memory.append(record)

    def note(self) -> None:
        """Add the state's last record to the memory."""
        if self._memory is not None:
            self._memory.append(self._stream.state.records[-1])

    async def remind(self) -> None:
        """Add the memory's reminder, if any, to the history."""
        if self._memory is None:
            return
        state = self._stream.state
        if told := await self._memory.retrieve(state, _observation(state)):
            await self._stream.emit(MessageAdded(user(told), own=True))


def _observation(state: AgentState) -> str:
    """What came after the model's last answer: the user's messages and tool results."""
    texts: list[str] = []
    for place in range(len(state.history) - 1, -1, -1):
        message = state.history[place]
        if message.role is Role.ASSISTANT:
            break
        texts.append(message.result.content if message.role is Role.TOOL else message.text)
    return "\n".join(reversed(texts))


def memory_named(name: str) -> Memory | None:
    """Make the memory ``window``, ``summary`` or ``search``; None for ``none``.

    Raises:
        ConfigError: there is no such memory.
    """
    match name:
        case "none":
            return None
        case "window":
            return WindowMemory()
        case "summary":
            return SummaryMemory()
        case "search":
            return SearchMemory()
    raise ConfigError(f'unknown memory "{name}"', hint="There are: none, window, summary, search")


def _is_reminder(message: Message) -> bool:
    return message.role is Role.USER and message.text.startswith(MARK)


def _by_user(message: Message) -> bool:
    return message.role is Role.USER and not message.text.startswith("[")


def _whole(record: StepRecord, chars: int = _RESULT_CHARS) -> str:
    """A step as text, with its results."""
    said = record.decision.text.strip() if record.decision else ""
    lines = [f"step {record.step}: {clip(said, 300)}".rstrip(": ")]
    calls = {call.id: call for call in record.decision.calls} if record.decision else {}
    for result in record.results:
        arguments = calls[result.call_id].arguments if result.call_id in calls else ""
        content = str(truncate(result.content, chars))
        lines.append(f"{result.name} {clip(arguments, 200)} ({result.outcome})\n{content}")
    return "\n".join(lines)


def _line(record: StepRecord) -> str:
    calls = {call.id: call for call in record.decision.calls} if record.decision else {}
    done = [
        f"{result.name} {one_line(calls[result.call_id].arguments, 80)}: "
        f"{result.outcome}, {one_line(result.content, 60)}"
        for result in record.results
        if result.call_id in calls
    ]
    said = one_line(record.decision.text, 100) if record.decision else ""
    return f"step {record.step}: {'; '.join([*([said] if said else []), *done])}"
