"""One card for a tool call: what it does, how it stands, and what came of it, folded."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalGroup
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from agentcli.messages import Outcome
from agentcli.text import clip, counted, escape, plain_output
from agentcli.tui.diff import Diff, counts
from agentcli.tui.entries import Used
from agentcli.wording import call_lines, duration, fold_result

_PAUSE_S = 0.1
_LIVE_LINES = 3
_MAX_LINES = 2000
_WIDE = 400
_MARKS = {
    Outcome.OK: ("●", "$success"),
    Outcome.FAILED: ("●", "$error"),
    Outcome.ERROR: ("✗", "$error"),
    Outcome.DENIED: ("⊘", "$warning"),
    Outcome.CANCELLED: ("⊘", "$warning"),
    Outcome.SKIPPED: ("○", "$foreground 55%"),
}


class ToolCard(VerticalGroup):
    """See the module. A click or Ctrl+O unfolds it."""

    def __init__(self, entry: Used, *, expanded: bool = False) -> None:
        super().__init__(classes="tool")
        self.entry = entry
        self._expanded = expanded
        self._text = Static(classes="tool-text")
        self._diff: Diff | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """The text; a diff joins it once there is one."""
        yield self._text

    async def on_mount(self) -> None:
        """Show it as it stands."""
        await self.show_entry()

    @property
    def expanded(self) -> bool:
        """Whether all of the output is shown."""
        return self._expanded

    @expanded.setter
    def expanded(self, value: bool) -> None:
        self._expanded = value
        if self._diff is not None:
            self._diff.expanded = value
        self.changed()

    def on_click(self, event: events.Click) -> None:
        """Fold or unfold, unless the click ended a selection."""
        if not self.screen.selections:
            event.stop()
            self.expanded = not self.expanded

    def changed(self) -> None:
        """The entry changed: show it, at most ten times a second."""
        if not self.entry.running:
            self.call_later(self.show_entry)
        elif self._timer is None and self.is_mounted:
            self._timer = self.set_timer(_PAUSE_S, self.show_entry)

    async def show_entry(self) -> None:
        """Draw the entry."""
        self._timer = None
        if not self.is_attached:
            return
        lines = [self._head(), *self._body()]
        self._text.update(Content("\n").join(lines))
        result = self.entry.result
        if result is not None and result.diff and self._diff is None:
            self._diff = Diff(result.diff, expanded=self._expanded)
            await self.mount(self._diff)

    def _head(self) -> Content:
        entry = self.entry
        first, *code = call_lines(entry.call, _WIDE)
        name, _, arguments = first.partition(" ")
        if entry.result is not None:
            mark, style = _MARKS[entry.result.outcome]
        else:
            mark, style = ("◐", "$primary") if entry.kind else ("○", "$foreground 55%")
        head = Content.assemble((f"{mark} ", style), (name, "bold"), " ", arguments)
        return Content("\n").join(
            [head, *(Content.styled(line, "$foreground 55%") for line in code)]
        )

    def _body(self) -> list[Content]:
        entry, result = self.entry, self.entry.result
        if result is None:
            return _gutter(_tail(entry.output, _LIVE_LINES)) if entry.kind else []
        took = f" · {duration(entry.duration_s)}" if entry.duration_s >= 0.05 else ""
        folded = fold_result(result, entry.kind)
        mark = "" if result.outcome is Outcome.OK else f" · {result.outcome}"
        if result.diff:
            added, removed = counts(result.diff)
            return _gutter([f"+{added} -{removed}{took}{mark}"])
        if self._expanded:
            lines = escape(plain_output(result.content)).rstrip("\n").expandtabs(4).split("\n")
            more = len(lines) - _MAX_LINES
            cut = [f"… {counted(more, 'more line')}: /export shows all"] if more > 0 else []
            first = lines[0] if len(lines) > 1 and lines[0] == folded.headline else ""
            rest = lines[1:] if first else lines
            return _gutter([f"{folded.headline}{mark}{took}", *rest[:_MAX_LINES], *cut])
        lines = [line.expandtabs(4) for line in folded.lines]
        if folded.omitted and lines:
            note = f"… {counted(folded.omitted, 'more line')} (ctrl+o)"
            lines = [note, *lines] if folded.tail else [*lines, note]
        return _gutter([f"{folded.headline}{mark}{took}", *lines])


def _gutter(lines: list[str]) -> list[Content]:
    """Lines below a head, the first with a corner."""
    return [
        Content.styled(f"  {'└' if index == 0 else ' '} {line}", "$foreground 55%")
        for index, line in enumerate(lines)
    ]


def _tail(output: bytes, count: int) -> list[str]:
    text = escape(plain_output(output.decode("utf-8", errors="replace"))).expandtabs(4)
    return [clip(line, 200) for line in text.split("\n") if line.strip()][-count:]
