"""Lines laid out as rows: every row fills the width and maps its characters correctly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.content import Content

from agentcli.text import escape
from agentcli.tui.lines import LONGEST, Line, behind
from agentcli.tui.markdown import pieces
from tests.tui.paper import laid, shown

_TEXTS = st.text(st.sampled_from("ab \t漢🎉é-"), max_size=60).map(escape)


@given(
    text=_TEXTS,
    marker=st.sampled_from(["", "• ", "12. "]),
    gutter=st.sampled_from(["", "▌ "]),
    width=st.integers(24, 60),
    folded=st.booleans(),
)
def test_rows_fit_and_know_their_characters(
    text: str, marker: str, gutter: str, width: int, folded: bool
) -> None:
    line = Line(Content(text), Content(marker), Content(gutter), folded=folded)
    rows, texts = laid([line], width)
    assert len(texts) == 1 and texts[0].startswith(marker)
    for row in rows:
        assert row.strip.cell_length == width
        part = texts[0][row.start : row.end]
        assert row.strip.crop(row.column, row.column + cell_len(part)).text == part
    found = "".join(texts[0][row.start : row.end] for row in rows)
    assert "".join(found.split()) == "".join(texts[0].split())  # a break drops only whitespace


def test_markers_stand_once_and_gutters_before_every_row() -> None:
    quoted = behind(Content("▌ "), [Line(Content("one two three four five"), Content("• "))])
    assert shown(quoted, 20) == ["  ▌ • one two", "  ▌   three four", "  ▌   five"]


def test_a_line_that_holds_a_newline_stays_one() -> None:
    rows, texts = laid([Line(Content("a\nb"))], 30)
    assert texts == ["a b"] and len(rows) == 1


def test_of_a_line_without_end_only_the_beginning_is_laid_out() -> None:
    text = "x" * 1_000_000
    for found in (laid([Line(Content(text))], 60)[1], laid(pieces(f"# Head\n\n{text}"), 60)[1]):
        assert len(found[-1]) <= LONGEST
        shown, _, left = found[-1].partition("… ")
        assert left == f"{1_000_000 - len(shown):,} more characters"
