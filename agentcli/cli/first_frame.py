"""Paints the first frame of the chat while the rest is still being imported.

It shows the prompt at its final place. What the user types in the meantime stays in the terminal's
buffer until the application reads it.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from agentcli.cli.signals import TERMINATED
from agentcli.tui.palette import PALETTES

PLACEHOLDER = "Ask, or / for commands, @ for files, ! for the shell"
_MARK = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"


@contextmanager
def first_frame(theme: str, mode: str) -> Iterator[None]:
    """Paint the frame, and restore the terminal's settings on exit.

    The application leaves the alternate screen; before it could, this does, on an error or a signal
    that ends the process.
    """
    out = sys.__stderr__  # the same stream as the application, to keep the order of writes
    if out is None or os.environ.get("TEXTUAL_DRIVER"):
        yield
        return
    before: list[Any] = []
    with suppress(OSError, termios.error):
        columns, rows = os.get_terminal_size(out.fileno())
        before = termios.tcgetattr(sys.stdin.fileno())
        quiet = [*before]
        quiet[0] &= ~termios.ICRNL  # or Enter would arrive as Ctrl+J, the key for a new line
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
    if not before:
        yield
        return

    def restore() -> None:
        with suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)

    def leave() -> None:
        with suppress(OSError):
            os.write(out.fileno(), b"\x1b[?1049l\x1b[?25h")

    def end(number: int, frame: FrameType | None) -> None:
        # At once: nothing is open yet, and an exception could be lost in the imports.
        leave()
        restore()
        os._exit(TERMINATED)

    with _handling(end):
        try:
            with suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, quiet)
                out.write(_frame(columns, rows, theme, mode))
                out.flush()
            yield
        except BaseException:
            # Not after the application has left it: that would move the cursor back to where it
            # was before the chat, above what has been printed since.
            leave()
            raise
        finally:
            restore()


@contextmanager
def _handling(end: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``end`` handle the signals that terminate, until the application handles them itself."""
    # What the parent ignores stays ignored, such as SIGHUP under nohup.
    ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    numbers = [number for number in ending if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _frame(columns: int, rows: int, theme: str, mode: str) -> str:
    colours = PALETTES[theme]
    colour = "NO_COLOR" not in os.environ
    ground = _rgb(48, colours.background) if colour else ""
    border = _rgb(38, colours.border) if colour else ""
    text = _rgb(38, colours.foreground) if colour else ""
    line = "─" * max(0, columns - 4)
    inside = f"{_MARK} {PLACEHOLDER}"[: max(0, columns - 6)]
    box = [
        f" {border}╭{line}╮ ",
        f" {border}│{text} {inside:<{max(0, columns - 5)}}{border}│ ",
        f" {border}╰{line}╯ ",
        f"  {text}{mode} · starting…",
    ]
    head = f"\x1b[?1049h\x1b[?25l{ground}\x1b[2J"
    placed = "".join(f"\x1b[{rows - 3 + at};1H{row}" for at, row in enumerate(box))
    return f"{head}{placed}\x1b[0m"


def _rgb(kind: int, colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"\x1b[{kind};2;{red};{green};{blue}m"
