"""Aligned columns. Only a terminal gets titles, so that programs get plain rows."""

from __future__ import annotations

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], titled: bool) -> list[str]:
    """Lines of aligned columns, two spaces apart; the last column is not padded."""
    shown = [list(titles), *map(list, rows)] if titled and rows else list(map(list, rows))
    widths = [max((len(row[place]) for row in shown), default=0) for place in range(len(titles))]
    widths[-1] = 0
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
