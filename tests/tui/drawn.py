"""A screen as lines of text: the character, colours and style of each cell."""

from __future__ import annotations

import difflib
from itertools import groupby
from pathlib import Path

from rich.style import Style
from textual.app import App

STORED = Path(__file__).parent / "stored"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def drawn(app: App[int]) -> list[str]:
    """Describe the screen: its rows between bars, the styles of each row, and a legend.

    The styles are written like ``a12 b3``: 12 cells in style a, then 3 in style b.
    """
    strips = app.screen._compositor.render_strips(app.screen.size)
    styles: dict[str, str] = {}
    texts, runs = [], []
    for number, strip in enumerate(strips):
        texts.append(f"|{strip.text}|")
        letters = [
            (styles.setdefault(_words(segment.style), _LETTERS[len(styles)]), segment.cell_length)
            for segment in strip
            if segment.text
        ]
        joined = [
            f"{letter}{sum(cells for _, cells in group)}"
            for letter, group in groupby(letters, key=lambda run: run[0])
        ]
        runs.append(f"{number:>2}  {' '.join(joined)}")
    legend = [f"{letter} = {words}" for words, letter in styles.items()]
    return [*texts, "", *runs, "", *legend]


def differences(app: App[int], name: str) -> str:
    """A diff between the stored screen and this one; empty if they are the same."""
    path = STORED / f"{name}.txt"
    stored = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return "\n".join(
        difflib.unified_diff(stored, drawn(app), path.name, "the screen", lineterm="", n=1)
    )


def store(app: App[int], name: str) -> None:
    """Store the current screen."""
    STORED.mkdir(exist_ok=True)
    (STORED / f"{name}.txt").write_text("\n".join(drawn(app)) + "\n", encoding="utf-8")


def _words(style: Style | None) -> str:
    if style is None:
        return "nothing"
    kinds = ("bold", "dim", "italic", "underline", "strike", "reverse")
    words = [kind for kind in kinds if getattr(style, kind)]
    for colour, before in ((style.color, ""), (style.bgcolor, "on ")):
        if colour is not None:
            words.append(before + (colour.triplet.hex if colour.triplet else colour.name))
    return " ".join(words) or "nothing"
