"""The completion list above the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import Static

from agentcli.text import escape

ROWS = 8
"""Maximum number of candidates shown at a time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """``text`` and then ``after`` replace what was typed; with ``send``, Enter sends at once."""

    text: str
    detail: str = ""
    after: str = " "
    send: bool = False


class Completion(Static):
    """The list. It never has the focus; the prompt handles its keys."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="completion")
        self.display = False
        self._candidates: Sequence[Candidate] = ()
        self._at = 0
        self.typed = 0
        """Number of characters before the cursor that the chosen text replaces."""
        self._before = ""

    @property
    def is_open(self) -> bool:
        """Whether there are candidates."""
        return bool(self._candidates)

    def fits(self, before: str) -> bool:
        """Whether the candidates are for this line up to the cursor, not for an earlier state.

        Keys that come in one read, as on a slow connection, overtake the list.
        """
        return before == self._before

    @property
    def chosen(self) -> Candidate:
        """The highlighted candidate; only valid while open."""
        return self._candidates[self._at]

    def offer(self, candidates: Sequence[Candidate], typed: int, before: str = "") -> None:
        """Show candidates for the line up to the cursor, best first; none closes the list."""
        self._candidates, self.typed, self._at, self._before = candidates, typed, 0, before
        self._show()

    def close(self) -> None:
        """Close the list."""
        if self._candidates:
            self.offer((), 0)

    def move(self, by: int) -> None:
        """Move the highlight, wrapping around."""
        self._at = (self._at + by) % len(self._candidates)
        self._show()

    def _show(self) -> None:
        self.display = bool(self._candidates)
        if not self._candidates:
            return
        room = max(len(candidate.text) for candidate in self._candidates)
        lines = []
        first = min(max(0, self._at - ROWS + 1), max(0, len(self._candidates) - ROWS))
        for index, candidate in enumerate(self._candidates[first : first + ROWS], start=first):
            marked = index == self._at
            text = Content.styled(
                f"{'▸' if marked else ' '} {escape(candidate.text):<{room}}",
                "bold $primary" if marked else "",
            )
            lines.append(Content.assemble(text, (f"  {escape(candidate.detail)}", "$muted")))
        if (more := len(self._candidates) - first - ROWS) > 0:
            lines.append(Content.styled(f"  … {more} more", "$muted"))
        self.update(Content("\n").join(lines))
