"""Vim's motions as pure functions from one offset in a text to another.

The cursor is on a character, or on the line end of an empty line. Offsets count characters, and
lines end in ``\\n``. Follows vim's manual (motion.txt).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

END_OF_LINE = 1 << 40
"""A column beyond every line."""


class Span(Enum):
    """The range an operator takes between the cursor and a motion's target."""

    EXCLUSIVE = auto()
    INCLUSIVE = auto()
    LINES = auto()


@dataclass(frozen=True, slots=True)
class Target:
    """A motion's target and span."""

    at: int
    span: Span = Span.EXCLUSIVE


def line_start(text: str, at: int) -> int:
    """The offset of the first character of a line."""
    return text.rfind("\n", 0, at) + 1


def line_end(text: str, at: int) -> int:
    """The offset of a line's end: of its ``\\n``, or of the end of the text."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def last_in_line(text: str, at: int) -> int:
    """The last position in a line that the cursor can be on."""
    return max(line_start(text, at), line_end(text, at) - 1)


def first_word(text: str, at: int) -> int:
    """The first non-blank character of a line."""
    start, end = line_start(text, at), line_end(text, at)
    return min(start + len(text[start:end]) - len(text[start:end].lstrip()), end)


def vertical(text: str, at: int, by: int, column: int) -> int | None:
    """The same column up to ``by`` lines below (negative: above); None if there is no such line."""
    start = line_start(text, at)
    for _ in range(abs(by)):
        if by > 0:
            end = line_end(text, start)
            if end == len(text):
                break
            start = end + 1
        elif start == 0:
            break
        else:
            start = line_start(text, start - 1)
    if start == line_start(text, at):
        return None
    return min(start + column, last_in_line(text, start))


def word_forward(text: str, at: int, big: bool) -> int:
    """``w``: the start of the next word; an empty line counts as a word."""
    kind = _kind(text, at, big)
    while kind and at < len(text) and _kind(text, at, big) == kind:
        at += 1
    begun = at if kind else at + 1
    while at < len(text) and not _kind(text, at, big):
        if at >= begun and _is_empty_line(text, at):
            break
        at += 1
    return at


def word_back(text: str, at: int, big: bool) -> int:
    """``b``: the start of this word or of the previous one."""
    at -= 1
    while at > 0 and not _kind(text, at, big) and not _is_empty_line(text, at):
        at -= 1
    kind = _kind(text, at, big) if at > 0 else 0
    while kind and at > 0 and _kind(text, at - 1, big) == kind:
        at -= 1
    return max(0, at)


def word_end(text: str, at: int, big: bool) -> int:
    """``e``: the end of this word or of the next one."""
    at += 1
    while at < len(text) and not _kind(text, at, big):
        at += 1
    kind = _kind(text, at, big)
    while at + 1 < len(text) and _kind(text, at + 1, big) == kind:
        at += 1
    return min(at, max(0, len(text) - 1))


def find(text: str, at: int, command: str, character: str, count: int) -> int | None:
    """``f``, ``F``, ``t``, ``T``: the position of a character in this line, or None."""
    start, end = line_start(text, at), line_end(text, at)
    found = at
    for _ in range(count):
        if command in "ft":
            found = text.find(character, found + 1, end)
        else:
            found = text.rfind(character, start, found)
        if found < 0:
            return None
    return found + {"f": 0, "F": 0, "t": -1, "T": 1}[command]


def word_object(text: str, at: int, around: bool) -> tuple[int, int]:
    """``iw`` and ``aw``: a word; with ``around``, also the blanks after it, or else before it."""
    start, end = line_start(text, at), line_end(text, at)
    kind = _kind(text, at, False)
    first = last = at
    while first > start and _kind(text, first - 1, False) == kind:
        first -= 1
    while last < end and _kind(text, last, False) == kind:
        last += 1
    if around and kind:
        after = last
        while after < end and not _kind(text, after, False):
            after += 1
        if after > last:
            last = after
        else:
            while first > start and not _kind(text, first - 1, False):
                first -= 1
    return first, last


def _kind(text: str, at: int, big: bool) -> int:
    """0: blank, 1: part of a word, 2: other."""
    if at >= len(text) or text[at].isspace():
        return 0
    return 1 if big or text[at].isalnum() or text[at] == "_" else 2


def _is_empty_line(text: str, at: int) -> bool:
    return text[at] == "\n" and (at == 0 or text[at - 1] == "\n")


def target(text: str, at: int, motion: str, count: int | None, column: int) -> Target | None:
    """The target of a motion, or None. ``column`` is for ``j`` and ``k``."""
    times = count or 1
    match motion:
        case "j" | "k":
            found = vertical(text, at, times if motion == "j" else -times, column)
            return None if found is None else Target(found, Span.LINES)
        case "G" | "gg":
            line = (count or (1 if motion == "gg" else text.count("\n") + 1)) - 1
            start = 0
            for _ in range(line):
                if (end := line_end(text, start)) == len(text):
                    break
                start = end + 1
            return Target(first_word(text, start), Span.LINES)
        case "h":
            return Target(max(line_start(text, at), at - times))
        case "l":
            return Target(min(line_end(text, at), at + times))
        case "0":
            return Target(line_start(text, at))
        case "^":
            return Target(first_word(text, at))
        case "$":
            for _ in range(times - 1):
                at = min(len(text), line_end(text, at) + 1)
            return Target(line_end(text, at))
    step = _WORDS[motion.lower()]
    for _ in range(times):
        at = step(text, at, motion.isupper())
    return Target(at, Span.INCLUSIVE if motion in "eE" else Span.EXCLUSIVE)


_WORDS: dict[str, Callable[[str, int, bool], int]] = {
    "w": word_forward,
    "b": word_back,
    "e": word_end,
}
