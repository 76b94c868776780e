"""Textual themes made from the palettes. All other modules refer to colours by role."""

from __future__ import annotations

from textual.theme import Theme

from agentcli.tui.palette import PALETTES, Palette


def _theme(name: str, palette: Palette) -> Theme:
    return Theme(
        name=name,
        primary=palette.primary,
        secondary=palette.secondary,
        accent=palette.accent,
        success=palette.success,
        warning=palette.warning,
        error=palette.error,
        foreground=palette.foreground,
        background=palette.background,
        surface=palette.surface,
        panel=palette.panel,
        dark=palette.dark,
        variables={
            "input-selection-background": palette.selection,
            "border-blurred": palette.border,
            "muted": _share(palette.foreground, palette.muted),
            "faint": _share(palette.foreground, palette.faint),
        },
    )


def _share(colour: str, share: float) -> str:
    """Add an opacity as ``#rrggbbaa``, the only form that text styles understand as well."""
    return f"{colour}{round(share * 255):02x}"


THEMES = tuple(_theme(name, palette) for name, palette in PALETTES.items())
