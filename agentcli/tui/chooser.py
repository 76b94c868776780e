"""A searchable list to choose from: sessions, models, earlier prompts, points to go back to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from agentcli.text import escape
from agentcli.tui.fuzzy import score

T = TypeVar("T")

_MOST = 300
_LEAST_LABEL = 24
_FRAME = 5
"""Cells of border, padding and scroll bar."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """One item; ``detail`` is shown muted after ``label``, and both are searched."""

    value: T
    label: str
    detail: str = ""


class Chooser(VerticalGroup, Generic[T]):
    """Replaces the prompt until the user chooses an item or presses Esc.

    ``look`` gets the highlighted value and returns a preview of it to show below, or None.
    """

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice[T]],
        *,
        look: Callable[[T], str | None] | None = None,
        query: str = "",
    ) -> None:
        super().__init__(id="chooser", classes="" if look is None else "-looks")
        self._title = title
        self._choices = list(choices)
        self._shown: list[Choice[T]] = []
        self._look = look
        self._query = query
        self._chosen: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()

    def compose(self) -> ComposeResult:
        """Title, search, list, preview."""
        yield Static(Content(self._title), classes="chooser-title")
        search = Input(self._query, placeholder="type to search", compact=True)
        search.cursor_blink = False  # as in the prompt: blinking wakes the processor while idle
        yield search
        yield OptionList(compact=True, markup=False)
        yield Static(classes="chooser-preview")
        yield Static("enter chooses · esc leaves", classes="chooser-keys")

    def on_mount(self) -> None:
        """Show all choices."""
        self.query_one(".chooser-preview").display = False
        self._filter(self._query)
        self.query_one(Input).focus()

    def on_resize(self, event: events.Resize) -> None:
        """Lay the rows out for the new width."""
        options = self.query_one(OptionList)
        marked = options.highlighted
        self._filter(self.query_one(Input).value)
        if self._shown:
            options.highlighted = marked or 0

    async def chosen(self) -> T | None:
        """Wait for the chosen value; None if the user cancels."""
        return await self._chosen

    def leave(self) -> None:
        """Close without a choice."""
        self._end(None)

    @on(Input.Changed)
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        self._filter(event.value)

    @on(Input.Submitted)
    def _enter(self, event: Input.Submitted) -> None:
        event.stop()
        self._choose()

    @on(OptionList.OptionSelected)
    def _click(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._choose()

    @on(OptionList.OptionHighlighted)
    def _mark(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self._look is None or event.option_index >= len(self._shown):
            return
        preview = self.query_one(".chooser-preview", Static)
        text = self._look(self._shown[event.option_index].value)
        preview.display = text is not None
        if text is not None:
            preview.update(Content(escape(text)))

    def on_key(self, event: events.Key) -> None:
        """Move through the list with the arrow keys while the search field has the focus."""
        options = self.query_one(OptionList)
        match event.key:
            case "down" | "ctrl+n":
                options.action_cursor_down()
            case "up" | "ctrl+p":
                options.action_cursor_up()
            case "escape" | "ctrl+c":
                self.leave()
            case _:
                return
        event.stop()
        event.prevent_default()

    def _filter(self, query: str) -> None:
        words = query.lower().split()
        ranked: list[tuple[float, Choice[T]]] = []
        for choice in self._choices:
            scores = [score(word, f"{choice.label} {choice.detail}") for word in words]
            if all(scores):
                ranked.append((sum(scores), choice))
        ranked.sort(key=lambda item: -item[0])
        self._shown = [choice for _, choice in ranked[:_MOST]]
        options = self.query_one(OptionList)
        options.clear_options()
        room = self.size.width - _FRAME
        options.add_options([Option(_row(choice, room)) for choice in self._shown])
        if self._shown:
            options.highlighted = 0

    def _choose(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._shown):
            self._end(self._shown[at].value)

    def _end(self, value: T | None) -> None:
        if not self._chosen.done():
            self._chosen.set_result(value)


def _row(choice: Choice[T], room: int) -> Content:
    """One line; the label is truncated if there is not enough room for both."""
    label = Content(escape(choice.label).replace("\n", " ⏎ "))
    if not choice.detail:
        return label
    detail = Content.styled(f"  {escape(choice.detail)}", "$muted")
    left = max(_LEAST_LABEL, room - detail.cell_length)
    return Content.assemble(label.truncate(left, ellipsis=True), detail)
