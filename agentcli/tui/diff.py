"""Renders a unified diff with colours, side by side if there is room for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from textual import events
from textual.content import Content
from textual.widgets import Static

from agentcli.text import escape
from agentcli.tui.code import coloured
from agentcli.tui.lines import Line, shortened

SPLIT_WIDTH = 100
"""Minimum width in cells of a side-by-side diff, which also must not truncate any line."""
FOLDED_ROWS = 24
_MAX_ROWS = 2000
_HEADINGS = "f@n"
_LEAST_TEXT = 8
_GUTTER = 8  # number and sign
_NOTES = ("new ", "deleted ", "old mode ", "folder ", "Binary files ")
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a diff: its sign, its left and right line numbers, and its text.

    The sign ``@`` separates hunks, ``f`` is a file's title, and ``n`` notes a change without
    lines, such as a new folder.
    """

    sign: str
    left: int
    right: int
    text: Content


def rows_of(diff: str) -> list[Row]:
    """The rows of a unified diff of one or more files, as written by git or ``diff -u``."""
    rows: list[Row] = []
    path, old, hunk, left, right = "", "", list[str](), 0, 0

    def close() -> None:
        rows.extend(_rows(hunk, left, right, path))
        hunk.clear()

    def title(name: str) -> str:
        close()
        if name != path:
            rows.append(Row("f", 0, 0, Content(escape(name))))
        return name

    for line, in_hunk in _lines(diff):
        if in_hunk:
            hunk.append(line)
        elif line.startswith("diff --git "):
            close()
            if name := _common(line.removeprefix("diff --git ")):
                path = title(name)
        elif line.startswith("rename from "):
            old = _unquoted(line.removeprefix("rename from "))
        elif line.startswith("rename to "):
            path = title(_unquoted(line.removeprefix("rename to ")))
            rows.append(Row("n", 0, 0, Content(escape(f"renamed from {old}"))))
        elif line.startswith("--- "):
            old = _bare(line[4:])
        elif line.startswith("+++ "):
            new = _bare(line[4:])
            path = title(old if new == "/dev/null" else new)
        elif match := _HUNK.match(line):
            close()
            if rows and rows[-1].sign not in _HEADINGS:
                rows.append(Row("@", 0, 0, Content("⋯")))
            left, right = int(match[1]), int(match[3])
        elif line.startswith(_NOTES):
            close()
            rows.append(Row("n", 0, 0, Content(escape(line.replace("file mode 100644", "file")))))
        if len(rows) + len(hunk) > _MAX_ROWS:
            close()
            rows.append(Row("n", 0, 0, Content("… more lines, which are not shown here")))
            break
    close()
    return rows


def _lines(diff: str) -> Iterator[tuple[str, bool]]:
    """The lines of a diff, and whether each is one of a hunk.

    A removed line ``-- x`` looks like a file's header, so the lines of each hunk are counted.
    """
    missing = 0
    for line in diff.split("\n"):
        in_hunk = missing > 0 and line[:1] in ("+", "-", " ")
        if in_hunk:
            missing -= 2 if line[0] == " " else 1
        elif match := _HUNK.match(line):
            missing = int(match[2] or 1) + int(match[4] or 1)
        yield line, in_hunk


def _bare(name: str) -> str:
    """A file name without quotes, the timestamp and git's ``a/`` or ``b/``."""
    name = _unquoted(name.split("\t")[0])
    return name[2:] if name.startswith(("a/", "b/")) else name


def _unquoted(name: str) -> str:
    return name[1:-1] if name.startswith('"') else name


def _common(names: str) -> str:
    """The name in ``a/NAME b/NAME``; empty if the two differ, as those of a renamed file do."""
    middle = len(names) // 2
    one, other = _bare(names[:middle]), _bare(names[middle + 1 :])
    return one if one == other else ""


def _rows(hunk: list[str], left: int, right: int, path: str) -> Iterator[Row]:
    """Number and highlight the lines of one hunk; each side is highlighted separately."""
    texts = [escape(line[1:].rstrip("\r")).expandtabs(4) for line in hunk]
    texts = [shortened(text) for text in texts]
    old = _coloured([t for line, t in zip(hunk, texts, strict=True) if line[0] != "+"], path)
    new = _coloured([t for line, t in zip(hunk, texts, strict=True) if line[0] != "-"], path)
    for line in hunk:
        if line[0] == "-":
            yield Row("-", left, 0, next(old))
            left += 1
        elif line[0] == "+":
            yield Row("+", 0, right, next(new))
            right += 1
        else:
            next(old)
            yield Row(" ", left, right, next(new))
            left, right = left + 1, right + 1


def _coloured(lines: list[str], path: str) -> Iterator[Content]:
    content = coloured("\n".join(lines), path=path)
    found = content.split("\n", allow_blank=True)
    # A lexer may drop blank lines at either end: keep the text rather than the colours.
    return iter(found if len(found) == len(lines) else [Content(line) for line in lines])


def unified(rows: Iterable[Row], width: int) -> list[Content]:
    """Number, sign and text of each row. Lines longer than ``width`` cells wrap, because an
    approval must show the whole change."""
    rows = list(rows)
    digits = len(str(max((max(row.left, row.right) for row in rows), default=0)))
    lines = []
    for row in rows:
        if row.sign in _HEADINGS:
            lines.append(_heading(row))
            continue
        number = f"{row.right or row.left:>{digits}}"
        room = max(_LEAST_TEXT, width - digits - 3)
        first, *rest = row.text.fold(room) if row.text.cell_length > room else [row.text]
        lines.append(_cell(number, replace(row, text=first), width))
        lines += [_cell(" " * digits, replace(row, text=more), width) for more in rest]
    return lines


def side_by_side(rows: Iterable[Row], width: int) -> list[Content]:
    """Removed lines on the left, the lines that replace them on the right."""
    rows = list(rows)
    digits = len(str(max((max(row.left, row.right) for row in rows), default=0)))
    half = (width - 1) // 2
    lines: list[Content] = []
    removed: list[Row] = []
    added: list[Row] = []

    def flush() -> None:
        for one, other in zip_longest(removed, added):
            lines.append(_pair(one, other, digits, half))
        removed.clear()
        added.clear()

    for row in rows:
        if row.sign == "-":
            removed.append(row)
        elif row.sign == "+":
            added.append(row)
        else:
            flush()
            lines.append(_heading(row) if row.sign in _HEADINGS else _pair(row, row, digits, half))
    flush()
    return lines


def _fits(rows: Sequence[Row], width: int) -> bool:
    """Whether the diff has two sides and both fit side by side."""
    both = {row.sign for row in rows} >= {"+", "-"}
    longest = max((row.text.cell_length for row in rows), default=0)
    return both and width >= SPLIT_WIDTH and longest + _GUTTER <= width // 2


def _heading(row: Row) -> Content:
    return row.text.stylize("bold" if row.sign == "f" else "$muted")


def _pair(one: Row | None, other: Row | None, digits: int, half: int) -> Content:
    left = _cell(f"{one.left:>{digits}}", one, half) if one else _blank(half)
    right = _cell(f"{other.right:>{digits}}", other, half) if other else _blank(half)
    return Content(" ").join([left, right])


def _blank(width: int) -> Content:
    return Content.styled(" " * width, "on $foreground 3%")


_STYLES = {"+": "on $success 14%", "-": "on $error 14%", " ": ""}
_SIGNS = {"+": "$success", "-": "$error", " ": "$muted"}


def _cell(number: str, row: Row, width: int) -> Content:
    sign = row.sign
    gutter = Content.styled(f"{number} {sign} ", _SIGNS[sign])
    line = Content.assemble(gutter, row.text).truncate(width, ellipsis=True, pad=True)
    return line.stylize_before(_STYLES[sign]) if _STYLES[sign] else line


def counts(diff: str) -> tuple[int, int]:
    """The number of lines added and removed."""
    signs = Counter(line[0] for line, in_hunk in _lines(diff) if in_hunk)
    return signs["+"], signs["-"]


def changed_lines(diff: str) -> str:
    """The counts as text; a diff without lines changes only names and modes."""
    added, removed = counts(diff)
    return f"+{added} -{removed}" if added or removed else "no line changed"


class DiffLines:
    """A piece that renders a diff for a width in cells.

    It is folded to ``FOLDED_ROWS`` unless ``expanded``. Files are named if there are several, or
    with ``titles``.
    """

    def __init__(self, diff: str, *, expanded: bool = False, titles: bool = False) -> None:
        rows = rows_of(diff)
        titles = titles or sum(row.sign == "f" for row in rows) > 1
        self._rows = [row for row in rows if titles or row.sign != "f"]
        self.expanded = expanded

    def __call__(self, width: int) -> list[Line]:
        """Render the diff as lines."""
        return [Line(content, folded=True) for content in self.contents(width)]

    def contents(self, width: int) -> list[Content]:
        """Render the diff as plain contents."""
        rows = self._rows if self.expanded else self._rows[:FOLDED_ROWS]
        layout = side_by_side if _fits(rows, width) else unified
        lines = layout(rows, width)
        if hidden := len(self._rows) - len(rows):
            lines.append(Content.styled(f"… {hidden} more lines (ctrl+o)", "$muted"))
        return lines


class Diff(Static):
    """A widget that shows a whole diff, for approvals."""

    def __init__(self, diff: str, *, titles: bool = False) -> None:
        super().__init__(classes="diff")
        self._lines = DiffLines(diff, expanded=True, titles=titles)
        self._width = 0

    def on_mount(self) -> None:
        """Start with nearly the final width, so that the first frame has the right height."""
        self._show(max(20, self.app.size.width - 10))

    def on_resize(self, event: events.Resize) -> None:
        """Lay the rows out for the new width."""
        self._show(event.size.width)

    def _show(self, width: int) -> None:
        if width and width != self._width:
            self._width = width
            self.update(Content("\n").join(self._lines.contents(width)))
