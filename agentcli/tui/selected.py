"""Rows in which text is selected, and rows that know which character is where."""

from __future__ import annotations

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from agentcli.tui.lines import Row


def marked(row: Row, text: str, span: tuple[int, int], background: Color) -> Strip:
    """The row with the characters from ``span[0]`` to ``span[1]`` (-1: all) of its text marked."""
    start = max(row.start, span[0])
    end = row.end if span[1] < 0 else min(row.end, span[1])
    if start >= end:
        return row.strip
    left = row.column + cell_len(text[row.start : start])
    right = left + cell_len(text[start:end])
    before, middle, after = row.strip.divide([left, right, row.strip.cell_length])
    return Strip.join([before, Strip(_coloured(middle, background), middle.cell_length), after])


def _coloured(strip: Strip, background: Color) -> list[Segment]:
    mark = Style(bgcolor=background)
    return [Segment(text, style + mark if style else mark) for text, style, _ in strip]


def with_offsets(row: Row, number: int) -> Strip:
    """The row with what Textual asks for to know what a mouse points at: with each segment, which
    character of the text ``number`` it begins with. Cells before the text stand for its start."""
    before, text = row.strip.divide([row.column, row.strip.cell_length])
    start = Style.from_meta({"offset": (row.start, number)})
    cells = [Segment(" ", start)] * before.cell_length
    wide = 0
    told: list[Segment] = []
    at = row.start
    for segment in text:
        left = row.end - at  # what fills the row after the text is no part of it
        part = segment.text[:left] if left > 0 else ""
        if part:
            meta = Style.from_meta({"offset": (at, number)})
            told.append(Segment(part, segment.style + meta if segment.style else meta))
            at += len(part)
            wide += cell_len(part)
    rest = row.strip.cell_length - row.column - wide
    return Strip([*cells, *told, Segment(" " * max(0, rest))], row.strip.cell_length)
