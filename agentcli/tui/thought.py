"""The model's reasoning, folded to a line."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from agentcli.text import escape, one_line
from agentcli.tui.entries import Thought
from agentcli.wording import duration

_PAUSE_S = 0.1


class ThoughtBlock(Static):
    """A line that says for how long; a click or Ctrl+O shows all of it."""

    def __init__(self, entry: Thought, *, expanded: bool = False) -> None:
        super().__init__(classes="thought")
        self.entry = entry
        self._expanded = expanded
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        """Show it as it stands."""
        self.show_entry()

    @property
    def expanded(self) -> bool:
        """Whether the whole text is shown."""
        return self._expanded

    @expanded.setter
    def expanded(self, value: bool) -> None:
        self._expanded = value
        self.show_entry()

    def on_click(self, event: events.Click) -> None:
        """Fold or unfold."""
        event.stop()
        self.expanded = not self.expanded

    def grow(self, text: str) -> None:
        """The entry's text has grown."""
        if self._timer is None:
            self._timer = self.set_timer(_PAUSE_S, self.show_entry)

    def show_entry(self) -> None:
        """Draw the entry."""
        self._timer = None
        entry = self.entry
        if entry.streaming:
            # The end of a thought in one line, whose height never changes.
            head = f"Thinking… {one_line(escape(entry.text[-200:]), 300)[-80:]}"
        elif entry.seconds is not None and entry.seconds >= 0.1:
            head = f"Thought for {duration(entry.seconds)}"
        else:
            head = "Thought"
        parts = [Content.styled(f"✻ {head}", "italic")]
        if self._expanded:
            parts.append(Content(escape(entry.text.strip())))
        self.update(Content("\n").join(parts))
