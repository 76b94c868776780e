"""The messages that the agent has not read yet, between its activity and the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from agentcli.text import counted, escape, one_line

ROWS = 3
"""Messages shown at a time: the last ones, as Up takes back the last."""
_WIDTH = 300


class Waiting(Static):
    """See the module docstring. It takes no room while nothing waits."""

    def __init__(self) -> None:
        super().__init__(id="waiting")
        self.display = False
        self._shown: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def show(self, unread: Sequence[str], queued: Sequence[str]) -> None:
        """Show messages for the next step, and those for after the turn."""
        if self._shown == (now := (tuple(unread), tuple(queued))):
            return
        self._shown = now
        rows = [(text, "next step") for text in unread] + [(text, "queued") for text in queued]
        lines = [
            Content.assemble(
                ("↳ ", "$primary"), (f"{when}  ", "$muted"), one_line(escape(text), _WIDTH)
            )
            for text, when in rows[-ROWS:]
        ]
        if (more := len(rows) - len(lines)) > 0:
            lines.insert(0, Content.styled(f"  … {counted(more, 'earlier one')}", "$muted"))
        if lines:
            lines.append(Content.styled("  ↑ takes back the last", "$muted"))
        self.display = bool(lines)
        self.update(Content("\n").join(lines))
