"""The model's words: Markdown that grows without flicker."""

from __future__ import annotations

import time

from markdown_it import MarkdownIt
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownFence, MarkdownStream

from agentcli.text import escape
from agentcli.tui.code import coloured
from agentcli.tui.entries import Answered

_PAUSE_S = 0.066
"""Between two updates of the screen while text streams in: fluent, and keys stay ahead of it."""

_MOST_PAUSE_S = 0.4


def _parser() -> MarkdownIt:
    # A model that writes List<int> means just that; links that nobody wrote are not made.
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class _Fence(MarkdownFence):
    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return coloured(code.expandtabs(4), language=language.split(" ")[0].strip() or None)


class AnswerBlock(Markdown):
    """One text of the model. ``grow`` adds to it, ``settle`` makes it final."""

    BLOCKS = {**Markdown.BLOCKS, "fence": _Fence, "code_block": _Fence}  # noqa: RUF012
    BULLETS = ["• ", "◦ ", "▪ ", "‣ "]  # noqa: RUF012

    def __init__(self, entry: Answered) -> None:
        super().__init__(
            escape(entry.text), classes="answer", parser_factory=_parser, open_links=False
        )
        self.entry = entry
        self._stream: MarkdownStream | None = None
        self._pending: list[str] = []
        self._flush: Timer | None = None
        self._pause_s = _PAUSE_S
        self._due = 0.0

    def on_mount(self) -> None:
        """Show what came before there was a place for it."""
        if self._pending:
            self._show_soon()

    def grow(self, text: str) -> None:
        """Text was added to the end; it is shown a moment later, with what else has come."""
        self._pending.append(text)
        if self._flush is None and self.is_mounted:
            self._show_soon()

    async def settle(self) -> None:
        """No more text comes; show the entry's text if it is not what was streamed."""
        await self._show_pending()
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        whole = escape(self.entry.text)
        if self.source.strip() != whole.strip():
            await self.update(whole)

    def _show_soon(self) -> None:
        self._due = time.monotonic() + self._pause_s
        self._flush = self.set_timer(self._pause_s, self._show_pending)

    async def _show_pending(self) -> None:
        if self._flush is not None:
            # A screen that is behind is given more time, so that keys stay ahead of the text.
            late_s = time.monotonic() - self._due
            self._pause_s = min(_MOST_PAUSE_S, max(_PAUSE_S, 4 * late_s))
        self._flush = None
        text, self._pending = "".join(self._pending), []
        if not text:
            return
        if self._stream is None:
            self._stream = Markdown.get_stream(self)
        await self._stream.write(escape(text))
