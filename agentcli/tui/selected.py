"""Rows with highlighted selections, and rows with the text offsets of their cells."""

from __future__ import annotations

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from agentcli.tui.lines import Row


def marked(row: Row, text: str, span: tuple[int, int], background: Color) -> Strip:
    """Highlight the characters from ``span[0]`` to ``span[1]`` (-1: the end) of the row's text."""
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
    """Add the metadata from which Textual finds the character under the mouse.

    Each segment gets the text's ``number`` and the offset of its first character. Cells before
    the text map to its start.
    """
    before, text = row.strip.divide([row.column, row.strip.cell_length])
    start = Style.from_meta({"offset": (row.start, number)})
    cells = [Segment(" ", start)] * before.cell_length
    wide = 0
    marked_text: list[Segment] = []
    at = row.start
    for segment in text:
        left = row.end - at  # excludes the filling after the text
        part = segment.text[:left] if left > 0 else ""
        if part:
            meta = Style.from_meta({"offset": (at, number)})
            marked_text.append(Segment(part, segment.style + meta if segment.style else meta))
            at += len(part)
            wide += cell_len(part)
    rest = row.strip.cell_length - row.column - wide
    return Strip([*cells, *marked_text, Segment(" " * max(0, rest))], row.strip.cell_length)
