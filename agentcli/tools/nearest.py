"""Explains why a text was not found: the most similar lines and the difference."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from agentcli.text import clip, clip_line
from agentcli.tools.textfile import split_lines

AROUND = 2
"""Lines shown before and after the nearest ones."""
MAX_LINES = 30
_COMPARED = 4000
"""The most lines of a file that are compared character by character."""


def explain_miss(text: str, old: str, path: str) -> str:
    """A message for the model: the numbered lines nearest to ``old``, and the difference."""
    lines, wanted = split_lines(text), old.split("\n")
    if slip := _slip(text, old):
        return f"error: old text not found in {path}. {slip}"
    # Empty lines at the start and end of ``old`` say nothing about its place.
    while len(wanted) > 1 and not wanted[-1].strip():
        wanted.pop()
    while len(wanted) > 1 and not wanted[0].strip():
        wanted.pop(0)
    first = _nearest(lines, wanted)
    if first is None:
        return f"error: old text not found in {path}, and no line resembles it. Read the file again"
    first = max(0, min(first, len(lines) - 1))
    window = lines[first : first + len(wanted)]
    start = max(0, first - AROUND)
    end = min(len(lines), first + len(wanted) + AROUND, start + MAX_LINES)
    rows = [f"{n + 1}\t{clip_line(lines[n], 500)}" for n in range(start, end)]
    head = f"old text not found in {path}. The nearest lines are:"
    return "\n".join([head, *rows, _difference(window, wanted, first + 1)])


def _slip(text: str, old: str) -> str:
    """Find mistakes in how ``old`` is written that comparing lines would not show."""
    numbered = re.compile(r"^\s*\d+\t", re.MULTILINE)
    if len(numbered.findall(old)) == old.strip("\n").count("\n") + 1:
        bare = numbered.sub("", old)
        if bare.strip() and bare.strip() in text:
            return "It begins with line numbers, which are not part of the file: leave them out"
    unescaped = old.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
    if unescaped != old and unescaped in text:
        return "It is escaped once too often: write line breaks, tabs and quotes as they are"
    return ""


def _nearest(lines: list[str], wanted: list[str]) -> int | None:
    """The index of the lines most similar to ``wanted``, or None. It may be out of range."""
    votes: Counter[int] = Counter()
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(_bare(line), []).append(number)
    for offset, line in enumerate(wanted):
        key = _bare(line)
        found = places.get(key, [])
        # A rare line says more than a brace that occurs everywhere.
        for number in found[:1000] if key else ():
            votes[number - offset] += 1 + 100 * len(key) // len(found)
    if votes:
        best = max(votes.values())
        return min(place for place, count in votes.items() if count == best)
    return _most_alike(lines, wanted)


def _most_alike(lines: list[str], wanted: list[str]) -> int | None:
    offset = max(range(len(wanted)), key=lambda n: len(wanted[n].strip()))
    key = _bare(wanted[offset])[:500]
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(key)
    best, place = 0.5, None
    for number, line in enumerate(lines[:_COMPARED]):
        matcher.set_seq1(_bare(line)[:500])
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best:
            ratio = matcher.ratio()
            if ratio > best:
                best, place = ratio, number - offset
    return place


def _bare(line: str) -> str:
    """A line without what is easily mistaken: white space, case, and kinds of quotes."""
    if line.isascii():
        return "".join(line.split()).replace("`", "'").lower()
    return "".join(unicodedata.normalize("NFKC", line).translate(_QUOTES).split()).casefold()


_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2212`", "''\"\"---'")


def _difference(window: list[str], wanted: list[str], first: int) -> str:
    """Describe in one sentence the first difference between the file's lines and ``wanted``."""
    pairs = list(zip(_ends_cut(window, wanted), wanted, strict=False))
    unlike = [(first + n, have, want) for n, (have, want) in enumerate(pairs) if have != want]
    if not unlike:
        if len(window) < len(wanted):
            return f"The file ends after line {first + len(window) - 1}; old text goes on."
        return "The lines are the same; what differs is the line breaks before or after them."
    if len(window) == len(wanted):
        if all(have.rstrip() == want.rstrip() for _, have, want in unlike):
            return _white_space_at_end(*unlike[0])
        if all(have.strip() == want.strip() for _, have, want in unlike):
            return _indentation(*unlike[0])
        if all("".join(have.split()) == "".join(want.split()) for _, have, want in unlike):
            number, have, want = unlike[0]
            return f"White space differs in line {number}: {_both(have, want)}."
        if all(have.casefold() == want.casefold() for _, have, want in unlike):
            number, have, want = unlike[0]
            return f"Upper and lower case differ in line {number}: {_both(have, want)}."
    return _letters(*_most_telling(unlike))


def _ends_cut(window: list[str], wanted: list[str]) -> list[str]:
    """Cut the outer lines to what ``wanted`` covers, as it may start and end within a line."""
    lines = list(window)
    for place in {0, len(wanted) - 1}:
        if place < len(lines):
            is_last = place == len(wanted) - 1
            lines[place] = _cut(lines[place], wanted[place], start=place == 0, end=is_last)
    return lines


def _cut(have: str, want: str, *, start: bool, end: bool) -> str:
    """The part of a line that ``want`` covers; ``start`` and ``end`` say where it may be cut."""
    spelled = [(bare, n) for n, char in enumerate(have) for bare in _bare(char)]
    key, whole = _bare(want), "".join(bare for bare, _ in spelled)
    at = whole.find(key) if start else 0
    if not end:
        at = len(whole) - len(key)
    if not key or at < 0 or whole[at : at + len(key)] != key or (not start and at):
        return have
    first, last = spelled[at][1], spelled[at + len(key) - 1][1] + 1
    before, after = have[:first], have[last:]
    before = before[len(before.rstrip()) :]
    after = after[: len(after) - len(after.lstrip())]
    want_before = want[: len(want) - len(want.lstrip())]
    want_after = want[len(want.rstrip()) :]
    if start and before.endswith(want_before):
        before = want_before
    if end and after.startswith(want_after):
        after = want_after
    return before + have[first:last] + after


def _most_telling(unlike: list[tuple[int, str, str]]) -> tuple[int, str, str]:
    """The first pair that differs in more than white space."""
    return next((pair for pair in unlike if _bare(pair[1]) != _bare(pair[2])), unlike[0])


def _white_space_at_end(number: int, have: str, want: str) -> str:
    have_end, want_end = have[len(have.rstrip()) :], want[len(want.rstrip()) :]
    return (
        f"White space at the end of line {number} differs: "
        f"the file has {_spaces(have_end)}, old text has {_spaces(want_end)}."
    )


def _indentation(number: int, have: str, want: str) -> str:
    have_start = have[: len(have) - len(have.lstrip())]
    want_start = want[: len(want) - len(want.lstrip())]
    return (
        f"The indentation of line {number} differs: "
        f"the file has {_spaces(have_start)}, old text has {_spaces(want_start)}."
    )


def _spaces(text: str) -> str:
    """``2 tabs and 4 spaces``."""
    names = {" ": "space", "\t": "tab"}
    parts = []
    for run in re.finditer(r"(.)\1*", text, re.DOTALL):
        name = names.get(run[1]) or unicodedata.name(run[1], f"U+{ord(run[1]):04X}")
        length = len(run[0])
        parts.append(f"{length} {name}" if length == 1 else f"{length} {name}s")
    return " and ".join(parts) or "none"


def _letters(number: int, have: str, want: str) -> str:
    for _, i, i_end, j, j_end in _changes(have, want):
        odd = [char for char in want[j:j_end] + have[i:i_end] if _odd(char)]
        if odd:
            named = ", ".join(_named(char) for char in odd[:2])
            return f"Characters differ in line {number} ({named}): {_both(have, want)}."
        if i_end - i <= 40 and j_end - j <= 40:
            ours, theirs = have[i:i_end], want[j:j_end]
            if ours and theirs:
                detail = f"the file has {ours!r} where old text has {theirs!r}"
            elif ours:
                detail = f"the file has {ours!r}, which is missing in old text"
            else:
                detail = f"old text has {theirs!r}, which is missing in the file"
            return f"Line {number} differs at column {i + 1}: {detail}."
        break
    return f"Line {number} differs: {_both(have, want)}."


def _changes(have: str, want: str) -> Iterator[tuple[str, int, int, int, int]]:
    """The differences within a line, with those of white space last."""
    matcher = difflib.SequenceMatcher(None, have[:500], want[:500], autojunk=False)
    if matcher.ratio() < 0.5:
        return
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    yield from sorted(
        changes, key=lambda code: not (have[code[1] : code[2]] + want[code[3] : code[4]]).strip()
    )


def _odd(char: str) -> bool:
    return char > "\x7f" and not char.isalnum()


def _named(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}"


def _both(have: str, want: str) -> str:
    return f"the file has {clip(have.strip(), 200)!r}, old text has {clip(want.strip(), 200)!r}"
