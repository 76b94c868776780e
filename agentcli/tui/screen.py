"""The screen, drawn with less work than Textual's own does, so that a key is seen at once.

What is changed here are details of Textual; where it has others one day, its own way is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._compositor import Compositor
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget


class Drawing(Compositor):
    """Asks widgets for the rows that have to be drawn."""

    def _get_renders(
        self, crop: Region | None = None
    ) -> Iterable[tuple[Region, Region, list[Strip]]]:
        """Textual renders all rows of all widgets, whatever has changed of them."""
        if crop is None:
            yield from super()._get_renders(crop)
            return
        for widget, (region, clip) in self.visible_widgets.items():
            rows = Region(region.x, crop.y, region.width, crop.height)
            part = region.intersection(clip).intersection(rows)
            if part and part.overlaps(crop):
                yield part, part, widget.render_lines(part.translate(-region.offset))


class ChatScreen(Screen[None]):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._compositor = Drawing()

    def show_now(self, widget: Widget) -> None:
        """Draw what has changed in a widget, without waiting for the messages and the timer that
        lead there else: other things would come in between at each of them."""
        self._dirty_widgets.add(widget)
        self._on_timer_update()
