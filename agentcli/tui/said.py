"""What the user said."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from agentcli.text import escape
from agentcli.tui.entries import Said


class SaidBlock(Static):
    """The user's words as they are, set apart by a bar."""

    def __init__(self, entry: Said) -> None:
        parts = [escape(entry.text)]
        parts += [f"[image {escape(name)}]" for name in entry.images]
        super().__init__(Content("\n".join(parts)), classes="said")
