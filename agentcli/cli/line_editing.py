"""Line editing on a terminal with readline: arrow keys, history, pasted lines."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agentcli.tui.history import PromptHistory

_MOST = 1000


@contextmanager
def line_editing(history: PromptHistory) -> Iterator[None]:
    """Let ``input`` recall earlier lines inside the ``with`` block, and restore the terminal.

    ``input`` itself may not do so, since a thread that still waits for a line is abandoned.
    """
    try:
        import readline
    except ImportError:  # without readline, ``input`` reads plain lines
        yield
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    readline.set_auto_history(False)  # the chat decides which lines are messages
    readline.clear_history()
    for text in history.texts[-_MOST:]:
        remember(text)
    try:
        yield
    finally:
        with suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
            if os.environ.get("TERM") != "dumb":
                print(end="\x1b[?2004l", flush=True)  # bracketed paste off


def remember(text: str) -> None:
    """Make a line available to the Up key; texts of several lines are not."""
    with suppress(ImportError):
        import readline

        if text and "\n" not in text:
            readline.add_history(text)
