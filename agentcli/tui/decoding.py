"""Lets the chat survive bytes that are not UTF-8, as in a paste of another encoding.

Textual decodes what the terminal sends strictly, and an error there ends the application.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import partial

from textual.drivers import linux_driver


def forgive() -> None:
    """Read each invalid byte as U+FFFD."""
    linux_driver.getincrementaldecoder = _forgiving  # type: ignore[assignment, attr-defined]


def _forgiving(encoding: str) -> Callable[[], codecs.IncrementalDecoder]:
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")
