"""The transcript: all entries as data, and widgets for those near what is looked at.

Mounting thousands of widgets would take seconds and slow down every key; so only a window of them
exists, which moves with the scroll position. While the end is in view it follows the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from textual.containers import VerticalScroll
from textual.widget import Widget

from agentcli.tui.answer import AnswerBlock
from agentcli.tui.entries import (
    Answered,
    Checked,
    Entry,
    Said,
    Shown,
    Thought,
    Told,
    TurnEnded,
    Used,
)
from agentcli.tui.notes import CheckBlock, ShownBlock, ToldBlock, TurnEndedBlock
from agentcli.tui.said import SaidBlock
from agentcli.tui.thought import ThoughtBlock
from agentcli.tui.tool_card import ToolCard

_BATCH = 20
_WINDOW = 40
"""Most entries that have widgets while the end is in view: what a layout costs grows with them."""
_NEAR_ROWS = 12


class Transcript(VerticalScroll, can_focus=False):
    """See the module. ``entries`` must only be changed through the methods."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self.entries: list[Entry] = []
        self.expanded = False
        self._widgets: dict[Entry, Widget] = {}
        self._first = 0  # the window is entries[_first:_last]
        self._last = 0
        self._moving = asyncio.Lock()

    def on_mount(self) -> None:
        """Follow the end."""
        self.anchor()

    @property
    def at_end(self) -> bool:
        """Whether the end is followed."""
        return self.is_anchored and not self._anchor_released

    # -- changes -----------------------------------------------------------------------------

    async def load(self, entries: Sequence[Entry]) -> None:
        """Show other entries, from their end."""
        async with self._moving:
            self.entries = list(entries)
            self._last = len(self.entries)
            self._first = max(0, self._last - _BATCH)
            self._widgets.clear()
            with self.app.batch_update():
                await self.remove_children()
                await self.mount_all(self._make(self.entries[self._first : self._last]))
        self.anchor()

    def prepend(self, earlier: Sequence[Entry]) -> None:
        """Entries from before the first one have been read; they are mounted when looked at."""
        self.entries[:0] = earlier
        self._first += len(earlier)
        self._last += len(earlier)

    def added(self, entry: Entry) -> None:
        """A new last entry."""
        attached = self._last == len(self.entries)
        self.entries.append(entry)
        if attached:
            self._last += 1
            self.mount(*self._make([entry]))
            if self.at_end and self._last - self._first > _WINDOW:
                self._drop_first(self._last - self._first - _WINDOW + _BATCH)

    def changed(self, entry: Entry) -> None:
        """An entry's fields are not what they were."""
        match self._widgets.get(entry):
            case ToolCard() as card:
                card.changed()
            case AnswerBlock() as answer:
                answer.call_later(answer.settle)
            case (ThoughtBlock() | CheckBlock()) as block:
                block.show_entry()

    def grew(self, entry: Answered | Thought, text: str) -> None:
        """Text was added to the end of an entry."""
        match self._widgets.get(entry):
            case (AnswerBlock() | ThoughtBlock()) as block:
                block.grow(text)

    def removed(self, entry: Entry) -> None:
        """An entry is void."""
        place = self.entries.index(entry)
        self.entries.remove(entry)
        self._first -= place < self._first
        self._last -= place < self._last
        if widget := self._widgets.pop(entry, None):
            widget.remove()

    def unfold(self, expanded: bool) -> None:
        """Unfold all cards and thoughts, or fold them."""
        self.expanded = expanded
        for widget in self._widgets.values():
            if isinstance(widget, ToolCard | ThoughtBlock):
                widget.expanded = expanded

    # -- the window --------------------------------------------------------------------------

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Move the window when its edge comes near."""
        super().watch_scroll_y(old_value, new_value)
        if self._moving.locked():
            return
        if new_value <= _NEAR_ROWS and self._first > 0 and new_value < old_value:
            self.run_worker(self._load_earlier(), group="window")
        elif new_value >= self.max_scroll_y - _NEAR_ROWS and self._last < len(self.entries):
            self.run_worker(self._load_later(), group="window")

    async def show_end(self) -> None:
        """Go to the end and follow it."""
        if self._last < len(self.entries):
            await self.load(self.entries)
        self.anchor()

    async def _load_earlier(self) -> None:
        async with self._moving:
            start = max(0, self._first - _BATCH)
            earlier = self.entries[start : self._first]
            if not earlier:
                return
            first = self.children[0] if self.children else None
            before = first.virtual_region.y if first is not None else 0
            self._first = start
            with self.app.batch_update():
                await self.mount_all(self._make(earlier), before=0)
                self.call_after_refresh(self._keep_in_place, first, before)
            surplus = self._last - self._first - 2 * _WINDOW
            if surplus > 0:
                self._drop_last(surplus)

    def _keep_in_place(self, widget: Widget | None, before: int) -> None:
        """What was looked at stays where it was, although something came above it."""
        if widget is not None and widget.is_attached:
            moved = widget.virtual_region.y - before
            self.scroll_to(y=self.scroll_y + moved, animate=False, immediate=True, force=True)

    async def _load_later(self) -> None:
        async with self._moving:
            later = self.entries[self._last : self._last + _BATCH]
            self._last += len(later)
            await self.mount_all(self._make(later))

    def _drop_first(self, count: int) -> None:
        for entry in self.entries[self._first : self._first + count]:
            if widget := self._widgets.pop(entry, None):
                widget.remove()
        self._first += count

    def _drop_last(self, count: int) -> None:
        for entry in self.entries[self._last - count : self._last]:
            if widget := self._widgets.pop(entry, None):
                widget.remove()
        self._last -= count

    def _make(self, entries: Sequence[Entry]) -> list[Widget]:
        for entry in entries:
            self._widgets[entry] = self._widget(entry)
        return [self._widgets[entry] for entry in entries]

    def _widget(self, entry: Entry) -> Widget:
        match entry:
            case Said():
                return SaidBlock(entry)
            case Answered():
                return AnswerBlock(entry)
            case Thought():
                return ThoughtBlock(entry, expanded=self.expanded)
            case Used():
                return ToolCard(entry, expanded=self.expanded)
            case Checked():
                return CheckBlock(entry)
            case Shown():
                return ShownBlock(entry)
            case Told():
                return ToldBlock(entry)
            case TurnEnded():
                return TurnEndedBlock(entry)
        raise TypeError(type(entry).__name__)
