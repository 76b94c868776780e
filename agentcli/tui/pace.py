"""What the interpreter does of itself, in pieces that keep no key waiting."""

from __future__ import annotations

import gc
import sys

_TURN_S = 0.0005
_YOUNG = 3_000


def quicken() -> None:
    """Threads read the keys and write the screen: they wait for a turn of 0.5 ms rather than 5.
    Garbage is looked for often and among little: of 50,000 objects, as is best for a start, a
    look takes 25 ms."""
    sys.setswitchinterval(_TURN_S)
    gc.set_threshold(_YOUNG, 5, 50)


def keep() -> None:
    """What is there by now stays, and need not be looked through for garbage again."""
    gc.freeze()
