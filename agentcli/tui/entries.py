"""The entries of a transcript: plain data, independent of how they are drawn.

An entry's rows can be dropped and drawn again from its data at any time, which keeps long
sessions fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agentcli.agent.events import CheckFinished
from agentcli.messages import ToolCall, ToolResult


class Level(StrEnum):
    """The severity of a notice."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Entry:
    """Base class of the entries, which compare by identity."""


@dataclass(slots=True, eq=False)
class Said(Entry):
    """A message of the user; ``images`` are the names of attached images."""

    text: str
    images: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Thought(Entry):
    """The model's reasoning. ``seconds`` is None while it streams or if unknown."""

    text: str = ""
    seconds: float | None = None
    streaming: bool = False


@dataclass(slots=True, eq=False)
class Answered(Entry):
    """Text of the model, usually Markdown; it grows while ``streaming``."""

    text: str = ""
    streaming: bool = False


@dataclass(slots=True, eq=False)
class Used(Entry):
    """A tool call, from the moment the model begins to write it.

    ``kind`` is the tool's kind, empty until it starts; ``output`` the end of its output so far;
    ``result`` is None until it has ended.
    """

    call: ToolCall
    kind: str = ""
    output: bytes = b""
    result: ToolResult | None = None
    duration_s: float = 0.0

    @property
    def running(self) -> bool:
        """Whether the tool has started and not yet ended."""
        return bool(self.kind) and self.result is None


@dataclass(slots=True, eq=False)
class Checked(Entry):
    """A check of the task; ``result`` is None until it has ended."""

    command: str
    result: CheckFinished | None = None


@dataclass(slots=True, eq=False)
class Told(Entry):
    """A notice of agentcli; ``hint`` says what to do about it."""

    text: str
    level: Level = Level.NOTE
    hint: str = ""


@dataclass(slots=True, eq=False)
class TurnEnded(Entry):
    """The end of a turn; ``facts`` are the parts of the line that sums it up."""

    facts: tuple[str, ...] = ()
    good: bool = True
    files: tuple[str, ...] = field(default_factory=tuple)


@dataclass(slots=True, eq=False)
class Shown(Entry):
    """Something the user asked to see: Markdown, then optionally a diff."""

    text: str
    diff: str = ""
