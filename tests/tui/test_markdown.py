"""Markdown as lines, parsed at once and while it streams in."""

from __future__ import annotations

import pytest

from agentcli.tui.answer import AnswerBlock
from agentcli.tui.entries import Answered
from agentcli.tui.markdown import pieces
from tests.tui.paper import laid, paper, shown

SAMPLE = """# Title

Some *text* with **bold**, `code` and a [link](https://example.org) to read, of more than a row.
It goes on.

1. first
2. second, with
   - an item 漢字

     and its second paragraph
   - another

> a quote
> > in a quote

| Name | What |
|---|--:|
| `a` | one thing |
| b | 漢字 |

```python
def part(x):
\treturn x  # 漢字

```

---

    indented

List<int> and <b>tags</b> and ![picture](a.png)\\
stay. [Later][1]

[1]: https://example.org
"""


def test_what_markdown_says_is_shown() -> None:
    rows = shown(pieces(SAMPLE), 60)
    for row in (
        "  Title",
        "  1. first",
        "  2. second, with",
        "     ◦ an item 漢字",
        "       and its second paragraph",
        "  ▌ a quote",
        "  ▌ ▌ in a quote",
        "  Name       What",
        "  a     one thing",
        "  b          漢字",
        "   def part(x):",
        "       return x  # 漢字",
        "   indented",
        "  List<int> and <b>tags</b> and [image picture]",
        "  stay. Later (https://example.org)",
    ):
        assert row in rows
    assert "  " + "─" * 56 in rows
    assert not any("[1]" in row for row in rows)


@pytest.mark.parametrize("width", [24, 60, 120])
def test_every_row_is_as_wide_as_the_paper(width: int) -> None:
    rows, _ = laid(pieces(SAMPLE), width)
    assert {row.strip.cell_length for row in rows} == {width}


@pytest.mark.parametrize("size", [1, 7, 50])
def test_an_answer_that_streamed_in_is_as_one_that_came_whole(size: int) -> None:
    whole = AnswerBlock(Answered(SAMPLE))
    whole.lay(paper(60))
    entry = Answered(streaming=True)
    block = AnswerBlock(entry)
    block.lay(paper(60))
    for start in range(0, len(SAMPLE), size):
        entry.text += SAMPLE[start : start + size]
        block.grow(SAMPLE[start : start + size])
        block.update(paper(60))
    entry.streaming = False
    block.update(paper(60))
    assert [row.strip for row in block.rows] == [row.strip for row in whole.rows]
    assert block.texts == whole.texts


def test_only_the_last_block_is_laid_out_again() -> None:
    entry = Answered("one\n\ntwo\n\nthr", streaming=True)
    block = AnswerBlock(entry)
    block.lay(paper(40))
    before = list(block.rows)
    entry.text += "ee"
    block.grow("ee")
    block.update(paper(40))
    assert [row.strip.text.strip() for row in block.rows] == ["one", "", "two", "", "three", ""]
    assert all(new is old for new, old in zip(block.rows[:3], before[:3], strict=True))


def test_an_answer_that_ends_otherwise_than_it_streamed_is_shown_as_it_ended() -> None:
    entry = Answered("draft", streaming=True)
    block = AnswerBlock(entry)
    block.lay(paper(40))
    entry.text, entry.streaming = "final", False
    block.update(paper(40))
    assert block.texts == ["final", ""]


def test_long_code_is_all_there_while_it_grows() -> None:
    lines = [f"x_{n} = {n}  # a comment" for n in range(120)]
    entry = Answered("```python\n", streaming=True)
    block = AnswerBlock(entry)
    block.lay(paper(60))
    for line in lines:
        entry.text += f"{line}\n"
        block.grow(f"{line}\n")
        block.update(paper(60))
    assert block.texts[:-1] == lines
    assert all(len(list(row.strip)) > 4 for row in block.rows[:-1])  # all rows are highlighted


def test_narrow_tables_break_their_cells() -> None:
    table = "| Name | What |\n|---|---|\n| read_file | reads a file of the workspace |\n"
    rows = shown(pieces(table), 30)
    assert rows[0].split() == ["Name", "What"] and len(rows) > 3
    assert " ".join(" ".join(row[2:].split()) for row in rows[2:]).count("workspace") == 1


def test_a_link_says_where_it_leads() -> None:
    told = shown(pieces("[here](https://a.example/x) <https://b.example> [f](src/f.py)"), 90)
    assert told == ["  here (https://a.example/x) https://b.example f"]


def test_entities_cannot_deceive() -> None:
    source = "**a&#x202e;b** [c&shy;](https://example.org) `&#x200b;` &#x200b; 1 &lt; 2 &amp;c."
    (row,) = shown(pieces(source), 90)
    assert row == r"  a\u202eb c\xad (https://example.org) &#x200b; \u200b 1 < 2 &c."
