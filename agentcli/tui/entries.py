"""The entries of a transcript: plain data, independent of how they are drawn.

What is drawn of an entry can be dropped and drawn again from its data at any time; that keeps a
long session fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agentcli.agent.events import CheckFinished
from agentcli.messages import ToolCall, ToolResult


class Level(StrEnum):
    """How much a note matters."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(slots=True, eq=False)
class Entry:
    """One thing in the transcript. Two entries are the same only if they are one object."""


@dataclass(slots=True, eq=False)
class Said(Entry):
    """What the user said; ``images`` are the names of images that went with it."""

    text: str
    images: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Thought(Entry):
    """The model's reasoning. ``seconds`` is None while it goes on or where it is not known."""

    text: str = ""
    seconds: float | None = None
    streaming: bool = False


@dataclass(slots=True, eq=False)
class Answered(Entry):
    """Text of the model, Markdown by convention; it grows while ``streaming``."""

    text: str = ""
    streaming: bool = False


@dataclass(slots=True, eq=False)
class Used(Entry):
    """A tool call, from the moment the model begins to write it.

    ``kind`` is the tool's kind, empty until it starts; ``output`` the end of what it printed so
    far; ``result`` is there once it has ended.
    """

    call: ToolCall
    kind: str = ""
    output: bytes = b""
    result: ToolResult | None = None
    duration_s: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return bool(self.kind) and self.result is None


@dataclass(slots=True, eq=False)
class Checked(Entry):
    """A check of the task; ``result`` is there once it has ended."""

    command: str
    result: CheckFinished | None = None


@dataclass(slots=True, eq=False)
class Told(Entry):
    """Something agentcli says; ``hint`` is what to do about it."""

    text: str
    level: Level = Level.NOTE
    hint: str = ""


@dataclass(slots=True, eq=False)
class TurnEnded(Entry):
    """A quiet line below a turn; ``facts`` are its parts."""

    facts: tuple[str, ...] = ()
    good: bool = True
    files: tuple[str, ...] = field(default_factory=tuple)


@dataclass(slots=True, eq=False)
class Shown(Entry):
    """Something the user asked to see: Markdown, or a diff below it."""

    text: str
    diff: str = ""
