"""Keeps a conversation within a small context window by leaving out the oldest results.

A pure function of the messages. Leaving something out invalidates a cache, so more is freed at
once than needed, and the same results stay left out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agentcli.messages import Message, Role, tool

LEFT_OUT = "[left out]"
KEPT_RESULTS = 2
FREED = 0.25
"""Share of the room that is freed in addition to what is needed."""


def fitted(
    messages: Sequence[Message],
    sizes: Sequence[int],
    room: int,
    *,
    short: frozenset[int] = frozenset(),
    size_of: Callable[[Message], int],
) -> tuple[list[Message], frozenset[int]]:
    """Fit messages into ``room`` tokens if possible; return them and the indexes left out.

    ``sizes`` are the tokens of each full message, ``short`` the indexes of results that were left
    out before. The last ``KEPT_RESULTS`` results are only left out if nothing else remains.
    """
    results = [i for i, message in enumerate(messages) if message.role is Role.TOOL]
    shown = [_shortened(m) if i in short else m for i, m in enumerate(messages)]
    now = [size_of(shown[i]) if i in short else size for i, size in enumerate(sizes)]
    if sum(now) <= room:
        return shown, short
    gone = set(short)
    aim = room - int(room * FREED)
    older, newer = results[:-KEPT_RESULTS], results[-KEPT_RESULTS:]
    for number in [*older, *newer]:
        if sum(now) <= (aim if number in older else room):
            break
        if number in gone:
            continue
        shorter = _shortened(messages[number])
        size = size_of(shorter)
        if size < now[number]:
            shown[number], now[number] = shorter, size
            gone.add(number)
    return shown, frozenset(gone)


def _shortened(message: Message) -> Message:
    return tool(replace(message.result, content=LEFT_OUT, images=()))
