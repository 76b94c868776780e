"""Lines laid out without a screen."""

from __future__ import annotations

from collections.abc import Iterable

from textual.color import Color
from textual.style import Style

from agentcli.tui.lines import Paper, Piece, Row

BASE = Style(background=Color(0, 0, 0), foreground=Color(255, 255, 255))


def paper(width: int) -> Paper:
    """A Paper that resolves no theme colours."""
    return Paper(width, BASE, lambda style: style if isinstance(style, Style) else BASE)


def laid(pieces: Iterable[Piece], width: int) -> tuple[list[Row], list[str]]:
    """Lay out pieces; return the rows and the texts."""
    rows: list[Row] = []
    texts: list[str] = []
    paper(width).lay(pieces, rows, texts)
    return rows, texts


def shown(pieces: Iterable[Piece], width: int) -> list[str]:
    """The rows as text."""
    return [row.strip.text.rstrip() for row in laid(pieces, width)[0]]
