"""Aligned columns. Only a terminal gets titles, so that programs get plain rows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], titled: bool) -> list[str]:
    """Lines of aligned columns, two spaces apart; the last column is not padded."""
    shown = [list(titles), *map(list, rows)] if titled and rows else list(map(list, rows))
    widths = [max((cell_len(row[at]) for row in shown), default=0) for at in range(len(titles))]
    widths[-1] = 0
    return [
        "  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))
