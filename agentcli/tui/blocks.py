"""The block for each kind of entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from textual.content import Content

from agentcli.text import counted, escape, one_line
from agentcli.tui import markdown
from agentcli.tui.answer import AnswerBlock
from agentcli.tui.block import MUTED, Block, plain
from agentcli.tui.diff import DiffLines
from agentcli.tui.entries import (
    Answered,
    Checked,
    Entry,
    Level,
    Said,
    Shown,
    Thought,
    Told,
    TurnEnded,
    Used,
)
from agentcli.tui.lines import BLANK, Line, Piece, behind
from agentcli.tui.tool_card import ToolCard
from agentcli.wording import check_line, check_output, duration

_SAID_LINES = 30
_MARKS = {Level.NOTE: "·", Level.WARNING: "!", Level.ERROR: "✗"}
_COLOURS = {Level.NOTE: MUTED, Level.WARNING: "$warning", Level.ERROR: "$error"}


def block_of(entry: Entry) -> Block[Any]:
    """A block that shows the entry."""
    match entry:
        case Said():
            return SaidBlock(entry)
        case Answered():
            return AnswerBlock(entry)
        case Thought():
            return ThoughtBlock(entry)
        case Used():
            return ToolCard(entry)
        case Checked():
            return CheckBlock(entry)
        case Shown():
            return ShownBlock(entry)
        case Told():
            return ToldBlock(entry)
        case TurnEnded():
            return TurnEndedBlock(entry)
    raise TypeError(type(entry).__name__)


class SaidBlock(Block[Said]):
    """The user's message without markup, marked by a bar; long messages are folded."""

    foldable = True

    def pieces(self) -> Iterator[Piece]:
        entry = self.entry
        bar = Content.styled("▌ ", "$primary")
        lines = [Content(line) for line in escape(entry.text).split("\n")]
        if (more := len(lines) - _SAID_LINES) > 1 and not self.expanded:
            note = f"… {counted(more, 'more line')} (ctrl+o)"
            lines = [*lines[:_SAID_LINES], Content.styled(note, MUTED)]
        lines += [Content(f"[image {escape(name)}]") for name in entry.images]
        return (Line(line, gutter=bar, style="on $foreground 5%") for line in lines)


class ThoughtBlock(Block[Thought]):
    """A line with the duration of the thought; the whole text when unfolded."""

    foldable = True

    def pieces(self) -> Iterator[Piece]:
        entry = self.entry
        if entry.streaming:
            # Only the end of the thought, on one line, so that the height stays the same.
            head = f"Thinking… {one_line(escape(entry.text[-200:]), 300)[-40:]}"
        elif entry.seconds is not None and entry.seconds >= 0.1:
            head = f"Thought for {duration(entry.seconds)}"
        else:
            head = "Thought"
        yield Line(Content(f"✻ {head}"), style=f"italic {MUTED}")
        if self.expanded:
            yield from plain(escape(entry.text.strip()), MUTED)


class ToldBlock(Block[Told]):
    """A note, warning or error, with its hint below."""

    def pieces(self) -> Iterable[Piece]:
        entry = self.entry
        style = _COLOURS[entry.level]
        lines = plain(escape(entry.text), style, Content(f"{_MARKS[entry.level]} "))
        if entry.hint:
            lines += plain(escape(entry.hint), "$foreground", Content("  → "))
        if entry.level is not Level.ERROR:
            return lines
        bar = Content.styled("▌ ", "$error")
        return (Line(line.text, line.marker, bar, f"{line.style} on $error 8%") for line in lines)


class CheckBlock(Block[Checked]):
    """A check of the task."""

    def pieces(self) -> Iterator[Piece]:
        result = self.entry.result
        if result is None:
            mark = Content.styled("◐ ", "$primary")
            yield from plain(f"check {escape(self.entry.command)}", "", mark)
            return
        sign, style = ("✓ ", "$success") if result.passed else ("✗ ", "$error")
        yield from plain(check_line(result), "", Content.styled(sign, style))
        for line in check_output(result):
            yield from plain(line, MUTED)


class TurnEndedBlock(Block[TurnEnded]):
    """The muted line below a turn."""

    def pieces(self) -> list[Line]:
        entry = self.entry
        facts = list(entry.facts)
        if entry.files:
            names = ", ".join(escape(path) for path in entry.files[:3])
            more = f" and {len(entry.files) - 3} more" if len(entry.files) > 3 else ""
            facts.append(f"changed {names}{more}")
        return plain(" · ".join(facts), "$faint")


class ShownBlock(Block[Shown]):
    """What the user asked to see."""

    def pieces(self) -> Iterator[Piece]:
        entry = self.entry
        yield from markdown.pieces(escape(entry.text))
        if entry.diff:
            yield BLANK
            lines = DiffLines(entry.diff, expanded=True, titles=True)
            yield from behind(Content("  "), [lines])
