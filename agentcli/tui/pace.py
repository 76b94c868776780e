"""Tunes thread switching and garbage collection so that they do not delay keys."""

from __future__ import annotations

import gc
import sys

_TURN_S = 0.0005
_YOUNG = 3_000


def quicken() -> None:
    """Reduce delays from thread switching and garbage collection.

    Threads, which read keys and write to the terminal, switch after 0.5 ms instead of 5. Garbage
    is collected often but little at a time: the threshold of 50,000 objects, which is best for a
    fast start, makes a collection take 25 ms.
    """
    sys.setswitchinterval(_TURN_S)
    gc.set_threshold(_YOUNG, 5, 50)


def keep() -> None:
    """Exempt all current objects from future collections."""
    gc.freeze()
