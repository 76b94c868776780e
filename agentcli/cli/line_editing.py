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
    """Give ``input`` the earlier lines within, and leave the terminal as it was found: whoever
    waits for a line is left waiting at the end."""
    try:
        import readline
    except ImportError:  # a Python without it reads plain lines
        yield
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    readline.set_auto_history(False)  # what is a message is for the chat to say
    readline.clear_history()
    for text in history.texts[-_MOST:]:
        remember(text)
    try:
        yield
    finally:
        with suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
            if os.environ.get("TERM") != "dumb":
                print(end="\x1b[?2004l", flush=True)  # pasting is as before


def remember(text: str) -> None:
    """Up leads to this line from now on; of several lines none does."""
    with suppress(ImportError):
        import readline

        if text and "\n" not in text:
            readline.add_history(text)
