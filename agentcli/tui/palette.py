"""The colours of each theme by role. Imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as ``#rrggbb``.

    ``border`` is for widgets without the focus. ``muted`` and ``faint`` are the opacity (0 to 1)
    of the foreground colour in less important text.
    """

    primary: str
    secondary: str
    accent: str
    success: str
    warning: str
    error: str
    foreground: str
    background: str
    surface: str
    panel: str
    border: str
    selection: str
    dark: bool = True
    muted: float = 0.58
    faint: float = 0.42


PALETTES = {
    "dark": Palette(
        primary="#7aa2f7",
        secondary="#bb9af7",
        accent="#7dcfff",
        success="#9ece6a",
        warning="#e0af68",
        error="#f7768e",
        foreground="#c8d0e0",
        background="#15171c",
        surface="#1b1e25",
        panel="#262a33",
        border="#3a404d",
        selection="#7aa2f7 35%",
    ),
    "light": Palette(
        primary="#2f5fd0",
        secondary="#7a3fbf",
        accent="#0f7fa8",
        success="#3b7d23",
        warning="#9a6700",
        error="#c4314b",
        foreground="#2a2e37",
        background="#fafaf8",
        surface="#f2f2ee",
        panel="#e4e4de",
        border="#c9c9c2",
        selection="#2f5fd0 25%",
        dark=False,
        muted=0.7,
        faint=0.55,
    ),
    "contrast": Palette(
        primary="#ffff00",
        secondary="#00ffff",
        accent="#00ffff",
        success="#00ff00",
        warning="#ffff00",
        error="#ff5f5f",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#1c1c1c",
        border="#ffffff",
        selection="#0050ff",
        muted=0.85,
        faint=0.75,
    ),
}
