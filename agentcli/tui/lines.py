"""Styled lines of text, laid out as rows of cells for a width.

The transcript is made of them. A ``Line`` is a logical line, however many rows it takes, and the
unit in which selected text is copied; a ``Row`` is one row of cells on the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual.content import Content
from textual.filter import LineFilter
from textual.strip import Strip
from textual.style import Style

from agentcli.text import counted

MARGIN = 2
"""Empty cells to the left and right of every row."""
_LEAST_ROOM = 8
LONGEST = 10_000
"""Maximum number of characters of a line, which bounds the cost of its layout."""
_NOTE_ROOM = 40

NOTHING = Content("")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, without newlines.

    ``marker`` precedes the first row and is part of the text, like the bullet of a list; later
    rows are indented by its width. ``gutter`` precedes every row and is never copied. ``style``
    is the base style of the whole row from the gutter to the right margin. A ``folded`` line, such
    as code, breaks at any character; other lines break between words.
    """

    text: Content = NOTHING
    marker: Content = NOTHING
    gutter: Content = NOTHING
    style: str = ""
    folded: bool = False

    def behind(self, gutter: Content) -> Line:
        """The same line behind one more gutter."""
        return replace(self, gutter=gutter + self.gutter)


Piece = Line | Callable[[int], Sequence[Line]]
"""A line, or a function from a width in cells to lines, such as a table."""

BLANK = Line()


def behind(gutter: Content, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, each behind one more gutter."""
    for piece in pieces:
        yield piece.behind(gutter) if isinstance(piece, Line) else _Behind(gutter, piece)


@dataclass(frozen=True, slots=True)
class _Behind:
    gutter: Content
    piece: Callable[[int], Sequence[Line]]

    def __call__(self, width: int) -> list[Line]:
        lines = self.piece(max(_LEAST_ROOM, width - self.gutter.cell_length))
        return [line.behind(self.gutter) for line in lines]


class Row(NamedTuple):
    """One row of cells.

    It shows the characters from ``start`` to ``end`` of its block's text number ``text``, from
    ``column`` on.
    """

    strip: Strip
    text: int
    start: int
    end: int
    column: int


class Paper:
    """Lays lines out for a ``width`` in cells and a set of colours.

    ``base`` must have a background, because other colours are blended with it.
    """

    def __init__(
        self,
        width: int,
        base: Style,
        parse: Callable[[Style | str], Style],
        filters: Sequence[LineFilter] = (),
    ) -> None:
        self.width = width
        self.base = base
        self._parse = parse
        self._filters = filters
        self._margin = Segment(" " * MARGIN, base.rich_style)
        (blank,) = self._filtered(Strip.blank(1, base.rich_style))
        self.style = blank.style
        """The style of an empty cell."""

    @property
    def room(self) -> int:
        """Cells between the margins."""
        return max(_LEAST_ROOM, self.width - 2 * MARGIN)

    def lay(self, pieces: Iterable[Piece], rows: list[Row], texts: list[str]) -> None:
        """Append the rows of these pieces and the texts they show."""
        for piece in pieces:
            for line in (piece,) if isinstance(piece, Line) else piece(self.room):
                text = line.text.plain
                if len(text) > LONGEST:
                    text = shortened(text)
                    line = replace(line, text=Content(text))
                if "\t" in text or "\n" in text:  # they would shift the cells after them
                    whole = line.text.expand_tabs(4).split("\n")
                    line = replace(line, text=Content(" ").join(whole))
                rows.extend(self._rows(line, len(texts)))
                texts.append(line.marker.plain + line.text.plain)

    def _rows(self, line: Line, number: int) -> Iterator[Row]:
        base = self.base + self._parse(line.style) if line.style else self.base
        gutter = self._segments(line.gutter, base)
        marker, indent = line.marker, line.marker.cell_length
        column = MARGIN + line.gutter.cell_length
        room = max(_LEAST_ROOM, self.width - MARGIN - column - indent)
        offset = len(marker.plain)
        at, whole = 0, line.text.plain
        for nth, piece in enumerate(_broken(line, room)):
            # Breaking drops the blanks at the break.
            at = max(at, whole.find(piece.plain, at))
            start, end = offset + at, offset + at + len(piece.plain)
            segments = [self._margin, *gutter]
            if nth == 0:
                segments += self._segments(marker, base)
                yield Row(self._strip(segments, piece, base), number, 0, end, column)
            else:
                segments.append(Segment(" " * indent, base.rich_style))
                yield Row(self._strip(segments, piece, base), number, start, end, column + indent)
            at += len(piece.plain)

    def _segments(self, content: Content, base: Style) -> list[Segment]:
        if not content.plain:
            return []
        rendered = content.render(base, end="", parse_style=self._parse)
        return [Segment(text, style.rich_style) for text, style in rendered]

    def _strip(self, segments: list[Segment], piece: Content, base: Style) -> Strip:
        segments += self._segments(piece, base)
        used = sum(cell_len(segment.text) for segment in segments)
        if (rest := self.width - MARGIN - used) > 0:
            segments.append(Segment(" " * rest, base.rich_style))
        return self._filtered(Strip([*segments, self._margin]).crop(0, self.width))

    def _filtered(self, strip: Strip) -> Strip:
        if (background := self.base.background) is not None:
            for one in self._filters:
                strip = strip.apply_filter(one, background)
        return strip


def shortened(line: str) -> str:
    """Cut a line that is longer than ``LONGEST`` to at most that length, including a note."""
    if len(line) <= LONGEST:
        return line
    room = LONGEST - _NOTE_ROOM
    return f"{line[:room]}… {counted(len(line) - room, 'more character')}"


def _broken(line: Line, room: int) -> list[Content]:
    """The text of a line in pieces of at most ``room`` cells."""
    text = line.text
    if text.cell_length <= room:
        return [text]
    return text.fold(room) if line.folded else text.wrap(room)
