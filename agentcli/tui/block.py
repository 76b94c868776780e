"""The rows of one entry of the transcript, cached until the entry changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from textual.content import Content

from agentcli.tui.entries import Entry
from agentcli.tui.lines import BLANK, NOTHING, Line, Paper, Piece, Row

MUTED = "$muted"
E_co = TypeVar("E_co", bound=Entry, covariant=True)


class Block(Generic[E_co]):
    """An entry laid out: its ``rows`` on the screen and the ``texts`` they show.

    Subclasses define the content in ``pieces``. A blank row below each block separates them.
    """

    foldable = False

    def __init__(self, entry: E_co) -> None:
        self.entry = entry
        self.expanded = False
        self.rows: list[Row] = []
        self.texts: list[str] = []

    def pieces(self) -> Iterable[Piece]:
        """The content, from top to bottom."""
        raise NotImplementedError

    def lay(self, paper: Paper) -> None:
        """Lay out the whole entry."""
        self.rows, self.texts = [], []
        paper.lay(self.pieces(), self.rows, self.texts)
        paper.lay([BLANK], self.rows, self.texts)

    def update(self, paper: Paper) -> None:
        """Lay out the entry again after a change."""
        self.lay(paper)


def plain(text: str, style: str = "", marker: Content = NOTHING) -> list[Line]:
    """Text without markup, with the marker before its first line."""
    first, *others = text.split("\n")
    rest = Content(" " * marker.cell_length)
    lines = [Line(Content(first), marker, style=style)]
    return lines + [Line(Content(other), rest, style=style) for other in others]
