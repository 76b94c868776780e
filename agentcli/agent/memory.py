"""Memories remind a model of its steps that it no longer sees in full.

There is nothing to remind of until a conversation is compacted. A reminder joins the history as a
message, so that the journal has it and the cached prefix stays valid; when a session is resumed,
the memory is rebuilt from the state's records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentcli.agent.bm25 import Index
from agentcli.agent.events import MessageAdded
from agentcli.agent.state import AgentState, StepRecord
from agentcli.agent.stream import Stream
from agentcli.errors import ConfigError
from agentcli.messages import Message, Role, ToolResult, user
from agentcli.text import clip, one_line, truncate

MARK = "[from memory"
_RESULT_CHARS = 600


class Memory(Protocol):
    """Records go in as the run goes; what they tell comes out before the model decides."""

    def append(self, record: StepRecord) -> None:
        """One more step was made."""
        ...

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """What the model should be told now; empty for nothing.

        ``observation`` is what it was not shown before: the user's words and results.
        """
        ...


class _Reminding:
    """Knows the records and which of them are out of sight; says something once a compaction."""

    def __init__(self) -> None:
        self._records: list[StepRecord] = []
        self._said_after = 0

    def append(self, record: StepRecord) -> None:
        """See ``Memory.append``."""
        self._records.append(record)

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """See ``Memory.retrieve``."""
        count = len(state.compactions)
        if count == self._said_after:
            return ""
        self._said_after = count
        if not count or any(_is_reminder(message) for message in state.view):
            return ""  # said before the session was resumed
        gone = self._out_of_sight(state)
        return self._told(gone) if gone else ""

    def _told(self, gone: Sequence[StepRecord]) -> str:
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


class WindowMemory(_Reminding):
    """The last ``n`` steps that are out of sight, with the beginning and end of their results."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self._n = n

    def _told(self, gone: Sequence[StepRecord]) -> str:
        return "\n".join([f"{MARK}: steps made before]", *map(_whole, gone[-self._n :])])


class SummaryMemory(_Reminding):
    """One line for each step that is out of sight; ``chars`` in all, the middle is left out."""

    def __init__(self, chars: int = 6000) -> None:
        super().__init__()
        self._chars = chars

    def _told(self, gone: Sequence[StepRecord]) -> str:
        lines = "\n".join(map(_line, gone))
        return f"{MARK}: what was done before, step by step]\n{truncate(lines, self._chars)}"


class SearchMemory(_Reminding):
    """The ``n`` steps out of sight that have most to do with what is at hand.

    It is asked after each compaction, and whenever the user says something; what is in sight, or
    was told since the last compaction, is not told again. ``least`` is the least BM25 score.
    """

    def __init__(self, n: int = 3, least: float = 2.0) -> None:
        super().__init__()
        self._n = n
        self._least = least
        self._index = Index()
        self._heard = 0
        self._told_steps: set[int] = set()

    def append(self, record: StepRecord) -> None:
        """See ``Memory.append``."""
        super().append(record)
        self._index.add(_whole(record, chars=20_000))

    async def retrieve(self, state: AgentState, observation: str) -> str:
        """See ``Memory.retrieve``."""
        before, self._heard = self._heard, len(state.history)
        count = len(state.compactions)
        asked = [m.text for m in state.history.since(before) if _by_user(m)]
        if count == self._said_after and not asked:
            return ""
        if count != self._said_after:
            self._told_steps.clear()
            self._said_after = count
        if not count:
            return ""
        gone = {id(record) for record in self._out_of_sight(state)}
        question = " ".join([state.task, *asked, clip(observation, 2000)])
        scores = self._index.scores(question)
        best = [
            (score, record)
            for score, record in zip(scores, self._records, strict=True)
            if score >= self._least and id(record) in gone and record.step not in self._told_steps
        ]
        best.sort(key=lambda pair: -pair[0])
        found = sorted((record for _, record in best[: self._n]), key=lambda record: record.step)
        self._told_steps.update(record.step for record in found)
        if not found:
            return ""
        return "\n".join([f"{MARK}: earlier steps that may matter now]", *map(_whole, found)])


class Recalling:
    """Feeds a memory with the steps of a session, and the model with what it tells."""

    def __init__(self, memory: Memory | None, stream: Stream) -> None:
        self._memory = memory
        self._stream = stream
        if memory is not None:
            for record in stream.state.records:
                memory.append(record)

    def note(self) -> None:
        """The last record is new."""
        if self._memory is not None:
            self._memory.append(self._stream.state.records[-1])

    async def remind(self) -> None:
        """What the memory tells joins the history."""
        if self._memory is None:
            return
        state = self._stream.state
        if told := await self._memory.retrieve(state, _observation(state)):
            await self._stream.emit(MessageAdded(user(told)))


def _observation(state: AgentState) -> str:
    """What the model was not shown when it last answered: the user's words, and results."""
    texts: list[str] = []
    for place in range(len(state.history) - 1, -1, -1):
        message = state.history[place]
        if message.role is Role.ASSISTANT:
            break
        texts.append(message.result.content if message.role is Role.TOOL else message.text)
    return "\n".join(reversed(texts))


def memory_named(name: str) -> Memory | None:
    """``window``, ``summary`` or ``search``; None for ``none``.

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
    """A step with what came of it."""
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
