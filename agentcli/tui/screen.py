"""A screen that redraws with less work than Textual's own, so that typed keys appear at once.

It overrides private methods of Textual; if those are renamed, Textual draws in its own way again.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._compositor import Compositor
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget


class Drawing(Compositor):
    """A compositor that renders only the rows to be redrawn."""

    def _get_renders(
        self, crop: Region | None = None
    ) -> Iterable[tuple[Region, Region, list[Strip]]]:
        """Render only the rows within ``crop``; Textual renders all rows of all widgets."""
        if crop is None:
            yield from super()._get_renders(crop)
            return
        for widget, (region, clip) in self.visible_widgets.items():
            rows = Region(region.x, crop.y, region.width, crop.height)
            part = region.intersection(clip).intersection(rows)
            if part and part.overlaps(crop):
                yield part, part, widget.render_lines(part.translate(-region.offset))


class ChatScreen(Screen[None]):
    """See the module docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._compositor = Drawing()

    def show_now(self, widget: Widget) -> None:
        """Redraw a widget now, not after the usual chain of messages and a timer.

        Other work could delay each link of that chain.
        """
        self._dirty_widgets.add(widget)
        self._on_timer_update()
