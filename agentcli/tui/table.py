"""Renders a table as lines. Columns are as wide as needed, or narrower if there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from agentcli.tui.lines import Line

_GAP = 2
_LEAST = 4


@dataclass(frozen=True, slots=True)
class Table:
    """A piece that renders a table for a width in cells.

    ``sides`` holds each column's alignment: ``left``, ``center`` or ``right``. An empty head is
    not shown.
    """

    head: Sequence[Content]
    rows: Sequence[Sequence[Content]]
    sides: Sequence[str]

    def __call__(self, width: int) -> list[Line]:
        """Render the table."""
        headed = any(cell.plain.strip() for cell in self.head)
        shown = [self.head, *self.rows] if headed else self.rows
        if not shown:
            return []
        widths = _widths(shown, width)
        lines: list[Line] = []
        if headed:
            lines += self._row([cell.stylize_before("bold") for cell in self.head], widths)
            rule = (" " * _GAP).join("─" * wide for wide in widths)
            lines.append(Line(Content.styled(rule, "$foreground 25%"), folded=True))
        for row in self.rows:
            lines += self._row(row, widths)
        return lines

    def _row(self, cells: Sequence[Content], widths: Sequence[int]) -> list[Line]:
        columns = [
            cell.wrap(wide) if cell.cell_length > wide else [cell]
            for cell, wide in zip(cells, widths, strict=True)
        ]
        height = max(len(column) for column in columns)
        lines = []
        for nth in range(height):
            parts = []
            for column, wide, side in zip(columns, widths, self.sides, strict=True):
                part = column[nth] if nth < len(column) else Content("")
                parts.append(_placed(part, wide, side))
            lines.append(Line(Content(" " * _GAP).join(parts).rstrip(), folded=True))
        return lines


def _placed(part: Content, wide: int, side: str) -> Content:
    free = max(0, wide - part.cell_length)
    left = {"center": free // 2, "right": free}.get(side, 0)
    return part.pad(left, free - left)


def _widths(rows: Sequence[Sequence[Content]], room: int) -> list[int]:
    """The width of each column in cells; the widest columns are narrowed first."""
    room -= _GAP * (len(rows[0]) - 1)
    widths = [
        min(max(1, *(cell.cell_length for cell in column)), max(_LEAST, room))
        for column in zip(*rows, strict=True)
    ]
    while sum(widths) > room and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths
