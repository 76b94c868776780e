"""The model's text: Markdown that grows. Only its last block is parsed again."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content

from agentcli.text import escape
from agentcli.tui import markdown
from agentcli.tui.block import Block
from agentcli.tui.entries import Answered
from agentcli.tui.lines import BLANK, Paper, Piece

_REDONE_LINES = 30
"""Maximum number of code lines to highlight again when code is added."""


class AnswerBlock(Block[Answered]):
    """One text of the model.

    While it streams, new text is parsed together with the last Markdown block, the only one it
    can change; earlier blocks keep their layout. Exceptions, such as link reference definitions
    at the end, are corrected once the answer is complete.
    """

    def __init__(self, entry: Answered) -> None:
        super().__init__(entry)
        self._source = ""
        self._added: list[str] = []
        self._open = 0  # offset of the last block in the source
        self._kept = (0, 0)  # number of rows and texts of the blocks before it
        self._code = _GrowingCode()

    def grow(self, text: str) -> None:
        """Append text; ``update`` lays it out."""
        self._added.append(text)

    def lay(self, paper: Paper) -> None:
        """Lay all of it out."""
        self.rows, self.texts = [], []
        self._added.clear()
        self._open, self._kept = 0, (0, 0)
        self._source = escape(self.entry.text)
        self._code = _GrowingCode()
        self._lay_open(paper)

    def update(self, paper: Paper) -> None:
        """Lay out the new text, or everything if the text has changed in other ways."""
        added = escape("".join(self._added))
        entry = self.entry
        if not entry.streaming and (
            (self._source + added).strip() != escape(entry.text).strip() or "]: " in entry.text
        ):
            self.lay(paper)
            return
        self._added.clear()
        self._source += added
        rows, texts = self._kept
        del self.rows[rows:], self.texts[texts:]
        self._lay_open(paper)

    def pieces(self) -> Iterator[Piece]:
        """All blocks of the whole text."""
        yield from markdown.pieces(escape(self.entry.text))

    def _lay_open(self, paper: Paper) -> None:
        source = self._source[self._open :]
        colour = self._code.colour if self.entry.streaming else markdown.colour
        blocks = markdown.parse(source, colour)
        for nth, block in enumerate(blocks):
            if nth:
                self._kept = len(self.rows), len(self.texts)
            if self.rows:
                paper.lay([BLANK], self.rows, self.texts)
            paper.lay(block.pieces, self.rows, self.texts)
        if blocks:
            lines = source.split("\n", blocks[-1].line)[: blocks[-1].line]
            self._open += sum(len(line) + 1 for line in lines)
        paper.lay([BLANK], self.rows, self.texts)


class _GrowingCode:
    """Highlights growing code without starting at its first line each time."""

    def __init__(self) -> None:
        self._code = ""
        self._coloured = Content("")

    def colour(self, code: str, language: str) -> Content:
        """Highlighted code; tokens that span separately highlighted parts may look different."""
        if not code.startswith(self._code):
            self._code, self._coloured = "", Content("")
        rest = code[len(self._code) :]
        shown = self._coloured + markdown.colour(rest, language)
        if rest.count("\n") > _REDONE_LINES:
            end = rest.rfind("\n")
            self._code += rest[: end + 1]
            self._coloured += markdown.colour(rest[:end], language) + "\n"
        return shown
