"""A one-line widget that redraws without a new layout."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget


class LineWidget(Widget):
    """Override ``content``, and call ``refresh()`` when it changes."""

    DEFAULT_CSS = "LineWidget { height: 1; width: 1fr; }"
    ALLOW_SELECT = False

    def content(self, width: int) -> Content:
        """The content for a width in cells; anything longer is truncated."""
        return Content("")

    def render(self) -> Content:
        """Render ``content`` for the current width."""
        width = self.size.width
        return self.content(width).truncate(width, ellipsis=True)


def spread(left: Content, right: Content, width: int) -> Content:
    """Align two texts to the ends of a line; only the left one if both do not fit."""
    gap = width - left.cell_length - right.cell_length
    if gap < 1:
        return left
    return Content.assemble(left, " " * gap, right)
