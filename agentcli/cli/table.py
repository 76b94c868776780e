"""Columns for people and for other programs: the same lines, with titles on a terminal only."""

from __future__ import annotations

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], titled: bool) -> list[str]:
    """Lines of aligned columns, two spaces apart; a last column may be as long as it likes."""
    shown = [list(titles), *map(list, rows)] if titled and rows else list(map(list, rows))
    widths = [max((len(row[place]) for row in shown), default=0) for place in range(len(titles))]
    widths[-1] = 0
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
