"""Colours: dark, light and high contrast. Everything else refers to them by role."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dark",
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
    dark=True,
    variables={"input-selection-background": "#7aa2f7 35%", "border-blurred": "#3a404d"},
)
LIGHT = Theme(
    name="light",
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
    dark=False,
    variables={"input-selection-background": "#2f5fd0 25%", "border-blurred": "#c9c9c2"},
)
CONTRAST = Theme(
    name="contrast",
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
    dark=True,
    text_alpha=1.0,
    variables={"input-selection-background": "#0050ff", "border-blurred": "#ffffff"},
)
THEMES = (DARK, LIGHT, CONTRAST)
