"""Handles Ctrl+C, termination and a closed terminal: the run is cancelled properly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130
TERMINATED = 143

_CODES = {
    signal.SIGINT: INTERRUPTED,
    **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT), TERMINATED),
}


class Interruption:
    """The first signal cancels; a second Ctrl+C raises KeyboardInterrupt as usual."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self.cancel = cancel
        """Called by the first signal; may be replaced at any time."""
        self.exit_code: int | None = None
        """The exit code for the first signal; None if there was none."""

    def _received(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            self.exit_code = _CODES[number]
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            self.cancel()


@contextmanager
def interruptible(cancel: Callable[[], object]) -> Iterator[Interruption]:
    """Handle the signals inside a running event loop."""
    loop = asyncio.get_running_loop()
    interruption = Interruption(cancel)
    # What the parent ignores stays ignored, such as SIGHUP under nohup.
    handled = [number for number in _CODES if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, interruption._received, number)
    try:
        yield interruption
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
