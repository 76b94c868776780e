"""Unified diffs of edits, fast for large files too."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator

CONTEXT = 3
_MAX_CHARS = 200_000
# Lines of one side times lines of the other. Up to ``_EXACT`` the comparison is exact, up to
# ``_ROUGH`` difflib's heuristic is used; each takes well under a second.
_EXACT, _ROUGH = 1_000_000, 50_000_000

_Opcode = tuple[str, int, int, int, int]
_TOKEN = re.compile(r"\w+|[^\w\s]")


def unified_diff(before: str | None, after: str, path: str) -> str:
    r"""The change of one file in git's format; a ``before`` of None means that it was created.

    Lines end only at ``\n``, so that a changed line ending shows as a change. A huge diff is
    truncated, within a hunk if need be, but stays valid.
    """
    if before == after:
        return ""
    parts = [f"--- {'/dev/null' if before is None else f'a/{path}'}\n+++ b/{path}\n"]
    room = _MAX_CHARS
    for hunk in _hunks(_lines(before or ""), _lines(after), room):
        parts.append(hunk)
        room -= len(hunk)
        if room <= 0:
            break
    return "".join(parts)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _hunks(old: list[str], new: list[str], room: int) -> Iterator[str]:
    # Most edits change little: compare only the part between the common start and end.
    shorter = min(len(old), len(new))
    first = next((n for n in range(shorter) if old[n] != new[n]), shorter)
    rest = shorter - first
    last = next((n for n in range(rest) if old[-1 - n] != new[-1 - n]), rest)
    start, keep = max(0, first - CONTEXT), max(0, last - CONTEXT)
    old, new = old[start : len(old) - keep], new[start : len(new) - keep]
    for group in _groups(_opcodes(old, new, first - start, last - keep)):
        yield _hunk(group, old, new, start, room)


def _opcodes(old: list[str], new: list[str], head: int, tail: int) -> Iterator[_Opcode]:
    """Compare lines of which the first ``head`` and the last ``tail`` are known to be equal."""
    end_old, end_new = len(old) - tail, len(new) - tail
    yield "equal", 0, head, 0, head
    a, b = old[head:end_old], new[head:end_new]
    size = len(a) * len(b)
    if size <= _ROUGH:
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=size > _EXACT)
        for tag, i, i_end, j, j_end in matcher.get_opcodes():
            yield tag, head + i, head + i_end, head + j, head + j_end
    else:
        yield "replace", head, end_old, head, end_new
    yield "equal", end_old, len(old), end_new, len(new)


def _groups(opcodes: Iterable[_Opcode]) -> Iterator[list[_Opcode]]:
    """Group changes into hunks; those whose contexts overlap share one."""
    group: list[_Opcode] = []
    for tag, i, i_end, j, j_end in opcodes:
        if tag == "equal" and i_end - i > 2 * CONTEXT:
            group.append((tag, i, i + CONTEXT, j, j + CONTEXT))
            yield group
            group = []
            i, j = i_end - CONTEXT, j_end - CONTEXT
        group.append((tag, i, i_end, j, j_end))
    yield group


def _hunk(group: list[_Opcode], old: list[str], new: list[str], start: int, room: int) -> str:
    rows: list[str] = []
    for tag, i, i_end, j, j_end in group:
        if tag == "equal":
            rows += [_row(" ", line) for line in old[i:i_end]]
        else:
            rows += [_row("-", line) for line in old[i:i_end]]
            rows += [_row("+", line) for line in new[j:j_end]]
    kept: list[str] = []
    for row in rows:
        room -= len(row)
        if room < 0 and kept:
            break
        kept.append(row)
    before = sum(row[0] in " -" for row in kept)
    after = sum(row[0] in " +" for row in kept)
    at_old, at_new = start + group[0][1], start + group[0][3]
    return f"@@ -{_range(at_old, before)} +{_range(at_new, after)} @@\n" + "".join(kept)


def _range(start: int, length: int) -> str:
    if length == 0:
        return f"{start},0"
    return f"{start + 1}" if length == 1 else f"{start + 1},{length}"


def _row(sign: str, line: str) -> str:
    if line.endswith("\n"):
        return sign + line
    return f"{sign}{line}\n\\ No newline at end of file\n"


def changed_tokens(old: str, new: str) -> tuple[int, int]:
    """Count the tokens removed from ``old`` and added in ``new``; moved tokens do not count."""
    before, after = Counter(_TOKEN.findall(old)), Counter(_TOKEN.findall(new))
    return (before - after).total(), (after - before).total()
