"""Keeps a conversation within a small context window: the oldest results go first.

A pure function of the messages. Shortening changes what a cache holds, so that more is freed at
once than is needed, and the same results stay short from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agentcli.messages import Message, Role, tool

LEFT_OUT = "[left out]"
KEPT_RESULTS = 2
FREED = 0.25
"""Share of the window that is freed beyond what is needed."""


def fitted(
    messages: Sequence[Message],
    sizes: Sequence[int],
    room: int,
    *,
    short: frozenset[int] = frozenset(),
    size_of: Callable[[Message], int],
) -> tuple[list[Message], frozenset[int]]:
    """Messages that take at most ``room`` tokens where that can be reached, and which are short.

    ``sizes`` are the tokens of each message as it is, ``short`` the numbers of those whose results
    were left out before. The last ``KEPT_RESULTS`` results go only when nothing else is left.
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
    return tool(replace(message.result, content=LEFT_OUT))
