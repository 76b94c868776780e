"""A widget of one line that is drawn anew without laying anything out again."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget


class Line(Widget):
    """Override ``content``; call ``refresh()`` when it changed."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"
    ALLOW_SELECT = False

    def content(self, width: int) -> Content:
        """The line for a width in cells; what is longer is cut."""
        return Content("")

    def render(self) -> Content:
        """See ``content``."""
        width = self.size.width
        return self.content(width).truncate(width, ellipsis=True)


def spread(left: Content, right: Content, width: int) -> Content:
    """Two texts at the two ends of a line; where both do not fit, the left one alone."""
    gap = width - left.cell_length - right.cell_length
    if gap < 1:
        return left
    return Content.assemble(left, " " * gap, right)
