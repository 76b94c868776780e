"""The line above the prompt: the current activity with its duration, and the phase."""

from __future__ import annotations

import time

from textual.content import Content
from textual.timer import Timer

from agentcli.agent.events import Phase
from agentcli.text import escape
from agentcli.tui.line_widget import LineWidget, spread
from agentcli.wording import duration

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.12


class ProgressLine(LineWidget):
    """Animates only while busy, and redraws its line without a new layout."""

    def __init__(self) -> None:
        super().__init__(id="progress")
        self._what = ""
        self._since = 0.0
        self._frame = 0
        self._phase: Phase | None = None
        self._step = 0
        self._retries = 0
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        """Whether there is a current activity."""
        return bool(self._what)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self._since if self._what else 0.0

    def begin(self, what: str) -> None:
        """Start the clock of a turn."""
        self._since = time.monotonic()
        self.doing(what)

    def doing(self, what: str) -> None:
        """Show the current activity; empty ends the turn."""
        if what and not self._what and not self._since:
            self._since = time.monotonic()
        if not what:
            self._since = 0.0
        if what == self._what:
            return
        self._what = what
        if what and self._timer is None:
            self._timer = self.set_interval(_TICK_S, self._tick)
        elif not what and self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.refresh()

    def where(self, phase: Phase | None, step: int = 0, retries: int = 0) -> None:
        """Show the phase, the step and how often it was retried; with None, nothing of it."""
        if (phase, step, retries) != (self._phase, self._step, self._retries):
            self._phase, self._step, self._retries = phase, step, retries
            self.refresh()

    def content(self, width: int) -> Content:
        """The activity on the left, the phases on the right."""
        return spread(self._left(), self._right(width), width)

    def _left(self) -> Content:
        if not self._what:
            return Content("")
        parts = [
            Content.styled(f"{_FRAMES[self._frame]} ", "$primary"),
            Content(escape(f"{self._what[0].upper()}{self._what[1:]}")),
            Content.styled(f" · {duration(self.elapsed_s)} · esc interrupts", "$muted"),
        ]
        return Content("").join(parts)

    def _right(self, width: int) -> Content:
        if self._phase is None:
            return Content("")
        reached = list(Phase).index(self._phase)
        words = []
        for index, phase in enumerate(Phase):
            style = "$faint"
            if index == reached:
                style = "bold $primary" if self._what else "$primary"
            elif index < reached:
                style = "$muted"
            if width >= 90 or index == reached:
                words.append(Content.styled(str(phase), style))
        bar = Content.styled(" → ", "$foreground 25%").join(words)
        facts = []
        if self._step:
            facts.append(f"step {self._step}")
        if self._retries:
            facts.append(f"{self._retries} retries" if self._retries > 1 else "1 retry")
        return Content("   ").join([bar, Content.styled(" · ".join(facts), "$muted")])

    def _tick(self) -> None:
        self._frame = (self._frame + 1) % len(_FRAMES)
        self.refresh()
