"""The transcript: all entries as data, and rows for those near the visible part.

One widget draws all of it. With one widget per paragraph, each added word would cause a new layout;
here a row is drawn once and cached, and new text costs only its own rows. While the end is visible
the view follows it; otherwise the visible part stays where it is.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from textual import events
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from agentcli.tui.answer import AnswerBlock
from agentcli.tui.block import Block
from agentcli.tui.blocks import block_of
from agentcli.tui.entries import Answered, Entry, Thought
from agentcli.tui.lines import Paper, Row
from agentcli.tui.screen import ChatScreen
from agentcli.tui.selected import marked, with_offsets

_BATCH = 8
"""Number of entries to lay out at a time when scrolling nears an edge."""
_FAR_PAGES = 6
"""Blocks more than this many screens away are dropped."""
_FRAME_S = 1 / 30
_SHARE = 4
"""The pause before the next frame is at least this many times the duration of the last one."""


class Transcript(ScrollView, can_focus=False):
    """See the module docstring. Change ``entries`` only through the methods."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self.entries: list[Entry] = []
        self.expanded = False
        self.at_end = True
        self._blocks: list[Block[Any]] = []  # of entries[_first:_last]
        self._first = 0
        self._first_text = 0  # number of the first text in the blocks; negative after prepending
        self._tops: list[int] = [0]  # first row of each block, and the row after the last
        self._changed: set[Entry] = set()
        self._shown: list[Strip | None] = []
        self._paper: Paper | None = None
        self._frame: asyncio.TimerHandle | None = None
        self._next_frame = 0.0

    def on_mount(self) -> None:
        """Lay everything out again when the theme changes."""
        self.app.theme_changed_signal.subscribe(
            self, lambda theme: self.call_after_refresh(self._lay_again)
        )

    @property
    def drawn(self) -> bool:
        """Whether all changes have been drawn."""
        return not self._changed

    @property
    def laid_out(self) -> int:
        """How many entries have rows."""
        return len(self._blocks)

    # -- changes -----------------------------------------------------------------------------

    def load(self, entries: Sequence[Entry]) -> None:
        """Replace all entries and show the end."""
        self.entries = list(entries)
        self._changed.clear()
        self._forget_from(len(self.entries))
        self.show_end()

    def prepend(self, earlier: Sequence[Entry]) -> None:
        """Insert entries before the first one. They are laid out when scrolled into view."""
        self.entries[:0] = earlier
        self._first += len(earlier)
        with self._in_place():
            pass  # the last of them may fit above the visible rows

    def added(self, entry: Entry) -> None:
        """Append an entry."""
        attached = self._last == len(self.entries)
        self.entries.append(entry)
        if attached and self._paper is not None:
            self._blocks.append(self._block(entry))
            self.changed(entry)

    def changed(self, entry: Entry) -> None:
        """Redraw an entry, whose fields have changed, with the next frame."""
        self._changed.add(entry)
        if self._frame is None and self.is_mounted:
            # Not a timer of Textual, which never fires if its time passes before it starts.
            delay = max(0.0, self._next_frame - time.monotonic())
            loop = asyncio.get_running_loop()
            self._frame = loop.call_later(delay, self.call_next, self._draw)

    def grew(self, entry: Answered | Thought, text: str) -> None:
        """Redraw an entry to which ``text`` was appended."""
        for block in reversed(self._blocks):
            if block.entry is entry and isinstance(block, AnswerBlock):
                block.grow(text)
                break
        self.changed(entry)

    def removed(self, entry: Entry) -> None:
        """Remove an entry."""
        place = self.entries.index(entry)
        self._changed.discard(entry)
        with self._in_place():
            if self._first <= place < self._last:
                del self._blocks[place - self._first]
            self._first -= place < self._first
            del self.entries[place]

    def unfold(self, expanded: bool) -> None:
        """Unfold or fold all cards and thoughts."""
        self.expanded = expanded
        with self._in_place():
            for block in self._blocks:
                if block.foldable:
                    self._fold(block, expanded)

    def show_end(self) -> None:
        """Scroll to the end and follow it."""
        if self._last < len(self.entries) or not self.at_end:
            self._forget_from(len(self.entries))
        self.at_end = True
        with self._in_place():
            pass

    def show_now(self) -> None:
        """Write changes to the terminal at once instead of with the next frame."""
        if isinstance(self.screen, ChatScreen):
            self.screen.show_now(self)

    # -- frames ------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Draw the changes since the last frame."""
        self._frame = None
        began = time.monotonic()
        changed, self._changed = self._changed, set()
        with self._in_place():
            for block in self._blocks:
                if self._paper is not None and block.entry in changed:
                    block.update(self._paper)
        now = time.monotonic()
        self._next_frame = now + max(_FRAME_S, _SHARE * (now - began))

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Keep the visible part in place while the body of the ``with`` changes blocks."""
        y = round(self.scroll_y)
        index = bisect_right(self._tops, y) - 1
        block = self._blocks[index] if 0 <= index < len(self._blocks) else None
        offset = y - self._tops[max(0, index)]
        yield
        if self._paper is None:
            return
        self._measure()
        if block is not None and block in self._blocks:
            top = self._tops[self._blocks.index(block)]
            y = top + min(offset, len(block.rows) - 1)
        self._settle(y)

    def _settle(self, y: int) -> None:
        """Lay out what is near ``y`` and scroll there, or to the end while it is followed."""
        page = self.size.height
        y = self._load_near(y, page)
        rows = self._tops[-1]
        y = max(0, rows - page) if self.at_end else min(y, max(0, rows - page))
        self.set_reactive(Transcript.scroll_y, y)
        self.set_reactive(Transcript.scroll_target_y, y)
        size = Size(self.size.width, rows)
        if self.show_vertical_scrollbar == (rows > page):
            # Only the scroll bar depends on the length, so no new layout is needed.
            self.set_reactive(Transcript.virtual_size, size)
            self._show_bar(y, rows, page)
        else:
            self.virtual_size = size
        self._show_rows()

    def _show_bar(self, y: int, rows: int, page: int) -> None:
        """Move the scroll bar.

        Drawing it costs more than drawing all the rows, so while the end is followed it moves by
        whole cells only.
        """
        bar = self.vertical_scrollbar
        if self.at_end and rows > page > 0:
            rows = page * page // max(1, page * page // rows)
            y = rows - page
        bar.window_virtual_size, bar.window_size = rows, page
        bar.position = y

    def _show_rows(self) -> None:
        """Refresh the rows that differ from those on the screen."""
        shown, self._shown = self._shown, self._visible()
        if len(shown) != len(self._shown):
            self.refresh()
            return
        pairs = zip(shown, self._shown, strict=True)
        changed = [y for y, (old, new) in enumerate(pairs) if old is not new and old != new]
        if changed:
            height = changed[-1] - changed[0] + 1
            self.refresh(Region(0, changed[0], self.size.width, height))

    def _visible(self) -> list[Strip | None]:
        """One strip for each row of the widget; too few rows are aligned to its bottom."""
        height, top = self.size.height, round(self.scroll_y)
        strips: list[Strip | None] = [None] * max(0, height - self._tops[-1])
        index = bisect_right(self._tops, top) - 1
        at = top - self._tops[max(0, index)]
        while len(strips) < height and index < len(self._blocks):
            strips += [row.strip for row in self._blocks[index].rows[at:]]
            index, at = index + 1, 0
        strips += [None] * (height - len(strips))
        return strips[:height]

    # -- layout ------------------------------------------------------------------------------

    @property
    def _last(self) -> int:
        return self._first + len(self._blocks)

    def _block(self, entry: Entry) -> Block[Any]:
        block = block_of(entry)
        block.expanded = self.expanded
        assert self._paper is not None
        block.lay(self._paper)
        return block

    def _measure(self) -> None:
        self._tops = [0, *accumulate(len(block.rows) for block in self._blocks)]

    def _load_near(self, y: int, page: int) -> int:
        """Lay out entries around ``y``, drop blocks far away, and return the new ``y``."""
        if self.at_end:
            y = self._tops[-1] - page
        while self._first > 0 and y < page:
            start = max(0, self._first - _BATCH)
            blocks = [self._block(entry) for entry in self.entries[start : self._first]]
            self._blocks[:0] = blocks
            self._first = start
            self._first_text -= sum(len(block.texts) for block in blocks)
            y += sum(len(block.rows) for block in blocks)
        below = sum(len(block.rows) for block in self._blocks) - y - page
        while self._last < len(self.entries) and below < page:
            blocks = [self._block(e) for e in self.entries[self._last : self._last + _BATCH]]
            self._blocks += blocks
            below += sum(len(block.rows) for block in blocks)
        if self.text_selection is None:  # dropped blocks could not be copied
            far = _FAR_PAGES * page
            while y - len(self._blocks[0].rows) > far if self._blocks else False:
                gone = self._blocks.pop(0)
                self._first += 1
                self._first_text += len(gone.texts)
                y -= len(gone.rows)
            while below - len(self._blocks[-1].rows) > far if self._blocks else False:
                below -= len(self._blocks.pop().rows)
        self._measure()
        return y

    def _forget_from(self, place: int) -> None:
        """Drop all blocks; layout starts again at the entry at index ``place``."""
        self._blocks, self._tops = [], [0]
        self._first, self._first_text = place, 0
        if self.is_mounted and self.text_selection is not None:
            self.screen.clear_selection()

    def _lay_again(self) -> None:
        """Lay out the visible part again for another width or other colours."""
        width = self.size.width - self.styles.scrollbar_size_vertical
        if width <= 0:
            return
        filters = self.app.get_line_filters()
        self._paper = Paper(width, self.visual_style, self._get_style, filters)
        index = max(0, bisect_right(self._tops, round(self.scroll_y)) - 1)
        looked_at = self._blocks[index : index + 1]
        self._forget_from(len(self.entries) if self.at_end else self._first + index)
        if looked_at and not self.at_end:
            looked_at[0].lay(self._paper)
            self._blocks = looked_at
            self._measure()
        self._settle(0)

    def on_resize(self, event: events.Resize) -> None:
        """Lay out again for a new width; a new height only changes how many rows are shown."""
        width = event.size.width - self.styles.scrollbar_size_vertical
        if self._paper is None or self._paper.width != width:
            self._lay_again()
        else:
            with self._in_place():
                pass

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Lay out what comes near as the user scrolls, and follow the end once it is reached."""
        super().watch_scroll_y(old_value, new_value)
        self.at_end = new_value >= self.max_scroll_y and self._last == len(self.entries)
        if self._paper is not None:
            self._settle(round(new_value))

    # -- drawing -----------------------------------------------------------------------------

    def _at(self, y: int) -> tuple[int, Row] | None:
        """The block's index and the row at row ``y`` of the widget, or None if it is empty."""
        y += round(self.scroll_y) - max(0, self.size.height - self._tops[-1])
        if not 0 <= y < self._tops[-1]:
            return None
        index = bisect_right(self._tops, y) - 1
        return index, self._blocks[index].rows[y - self._tops[index]]

    def _number(self, index: int) -> int:
        """The number of a block's first text."""
        return self._first_text + sum(len(block.texts) for block in self._blocks[:index])

    def render_lines(self, crop: Region) -> list[Strip]:
        """Render the rows of a region of the widget."""
        style = self._paper.style if self._paper else self.visual_style.rich_style
        selection, shown = self.text_selection, self._shown
        strips = []
        for y in crop.line_range:
            strip = shown[y] if y < len(shown) else None
            if strip is None:
                strips.append(Strip.blank(crop.width, style))
                continue
            if selection is not None:
                strip = self._marked(y, selection)
            strips.append(strip.crop_extend(crop.x, crop.right, style))
        return strips

    def _marked(self, y: int, selection: Selection) -> Strip:
        """A row with its selection highlighted."""
        found = self._at(y)
        if found is None:
            return Strip([])
        index, row = found
        span = selection.get_span(self._number(index) + row.text)
        if span is None:
            return row.strip
        return marked(row, self._blocks[index].texts[row.text], span, self._selection_colour)

    @property
    def _selection_colour(self) -> Any:
        style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
        return (self.visual_style + style).rich_style.bgcolor

    # -- the mouse ---------------------------------------------------------------------------

    @property
    def allow_select(self) -> bool:
        """Text can be selected although the widget never has the focus."""
        return True

    def render_line(self, y: int) -> Strip:
        """A row with text offsets, from which Textual finds the character under the mouse."""
        found = self._at(y)
        if found is None:
            return Strip.blank(self.size.width)
        index, row = found
        return with_offsets(row, self._number(index) + row.text)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text with its original line breaks rather than those of the layout."""
        lines = []
        texts = [text for block in self._blocks for text in block.texts]
        for number, text in enumerate(texts, self._first_text):
            if (span := selection.get_span(number)) is not None:
                lines.append(text[max(0, span[0]) : None if span[1] < 0 else span[1]])
        return "\n".join(lines), "\n"

    def on_click(self, event: events.Click) -> None:
        """Fold or unfold the clicked entry. A double click selects the line, a triple the entry."""
        event.prevent_default()  # the default selects the whole widget
        event.stop()
        found = self._at(event.y)
        if found is None:
            return
        index, row = found
        block, first = self._blocks[index], self._number(index)
        if event.chain == 2:
            number = first + row.text
            self._select(number, number, len(block.texts[row.text]))
        elif event.chain == 3:
            self._select(first, first + len(block.texts) - 1, 0)
        elif block.foldable and self.text_selection is None:
            with self._in_place():
                self._fold(block, not block.expanded)

    def _select(self, first: int, last: int, end: int) -> None:
        self.screen.selections = {self: Selection(Offset(0, first), Offset(end, last))}

    def _fold(self, block: Block[Any], expanded: bool) -> None:
        block.expanded = expanded
        if self._paper is not None:
            block.lay(self._paper)
