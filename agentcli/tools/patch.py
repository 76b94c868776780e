"""Parses and applies patches in the format that OpenAI's models are trained to write.

*** Begin Patch
*** Add File: NAME           then lines that begin with +
*** Delete File: NAME
*** Update File: NAME        then perhaps "*** Move to: NAME", then hunks:
@@ a line above              where to look, optional
 kept                        one character before each line: space, - or +
-gone
+new
*** End of File              after a hunk that ends the file, optional
*** End Patch
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentcli.errors import ToolError, ToolInputError
from agentcli.tools.nearest import explain_miss

BEGIN, END, END_OF_FILE = "*** Begin Patch", "*** End Patch", "*** End of File"
_ADD, _DELETE, _UPDATE = "*** Add File: ", "*** Delete File: ", "*** Update File: "
_MOVE = "*** Move to: "


@dataclass
class Hunk:
    """``old`` lines are replaced by ``new`` ones; ``above`` are lines that come before."""

    above: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    at_end: bool = False


@dataclass
class FileChange:
    """``kind`` is add, delete or update; ``text`` is the content of an added file."""

    kind: str
    path: str
    text: str = ""
    move_to: str = ""
    hunks: list[Hunk] = field(default_factory=list)


def parse_patch(patch: str) -> list[FileChange]:
    """Parse a patch.

    Raises:
        ToolInputError: it is not in the format above; the message names the line.
    """
    lines = _lines(patch.strip())
    if lines[0].strip() != BEGIN or lines[-1].strip() != END:
        raise ToolInputError(f'the patch must begin with "{BEGIN}" and end with "{END}"')
    changes: list[FileChange] = []
    added: list[str] = []
    for number, line in enumerate(lines[1:-1], start=2):
        if change := _header(line):
            changes.append(change)
            continue
        change = changes[-1] if changes else None
        if change is None or not _take(change, line):
            raise ToolInputError(f"line {number} of the patch is not expected here: {line[:80]!r}")
    for change in changes:
        if change.kind == "update" and not change.hunks and not change.move_to:
            raise ToolInputError(f"the update of {change.path} changes nothing")
        added += [change.path, *([change.move_to] if change.move_to else [])]
    if not changes:
        raise ToolInputError("the patch is empty")
    if twice := sorted({path for path in added if added.count(path) > 1}):
        raise ToolInputError(f"{twice[0]} is in the patch more than once; put its hunks together")
    return changes


def paths_of(patch: str) -> list[str]:
    """All files that a patch names, even if the rest of it is invalid."""
    starts = (_ADD, _DELETE, _UPDATE, _MOVE)
    return [
        line.removeprefix(start).strip()
        for line in _lines(patch)
        for start in starts
        if line.startswith(start)
    ]


def _lines(patch: str) -> list[str]:
    return patch.replace("\r\n", "\n").split("\n")


def _header(line: str) -> FileChange | None:
    for kind, start in (("add", _ADD), ("delete", _DELETE), ("update", _UPDATE)):
        if line.startswith(start) and line.removeprefix(start).strip():
            return FileChange(kind, line.removeprefix(start).strip())
    return None


def _take(change: FileChange, line: str) -> bool:
    """Add a line to a change; return whether it is allowed there."""
    if change.kind == "add" and line.startswith("+"):
        change.text += line[1:] + "\n"
        return True
    if change.kind != "update":
        return not line.strip()
    if line.startswith(_MOVE) and not change.hunks and not change.move_to:
        change.move_to = line.removeprefix(_MOVE).strip()
        return bool(change.move_to)
    if line.rstrip() == END_OF_FILE and change.hunks:
        change.hunks[-1].at_end = True
        return True
    if line.startswith("@@"):
        above = line[2:].strip()
        # Several consecutive @@ lines narrow the place down.
        last = change.hunks[-1] if change.hunks else None
        if last is None or last.old or last.new:
            last = Hunk()
            change.hunks.append(last)
        if above:
            last.above.append(above)
        return True
    if not change.hunks:
        change.hunks.append(Hunk())
    hunk = change.hunks[-1]
    mark, text = (line[0], line[1:]) if line else (" ", "")
    if mark in " -":
        hunk.old.append(text)
    if mark in " +":
        hunk.new.append(text)
    return mark in " -+"


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines ``start`` to ``end`` (exclusive, from 0) of a file become ``new``."""

    start: int
    end: int
    new: tuple[str, ...]


def place_hunks(change: FileChange, lines: Sequence[str]) -> list[Edit]:
    """Find the place of each hunk of an update, from the top of the file to its end.

    A hunk's lines are searched for as they are, then without trailing white space, then without
    leading and trailing white space. Lines that the hunk keeps are not touched.

    Raises:
        ToolError: a hunk was not found.
    """
    edits: list[Edit] = []
    at = 0
    for hunk in change.hunks:
        for above in hunk.above:
            found = _find(lines, [above], at, at_end=False)
            if found is None:
                raise ToolError(f"{change.path} has no line {above!r} below line {at}")
            at = found + 1
        if not hunk.old:
            # Only new lines: they go below the line that @@ names, or to the end of the file.
            start = at if hunk.above and not hunk.at_end else len(lines)
            edits.append(Edit(start, start, tuple(hunk.new)))
            continue
        found = _find(lines, hunk.old, at, at_end=hunk.at_end)
        if found is None:
            wanted = "\n".join(hunk.old)
            told = explain_miss("\n".join(lines) + "\n", wanted, change.path)
            raise ToolError(told.removeprefix("error: "))
        edits += _narrowed(hunk, found)
        at = found + len(hunk.old)
    return sorted(edits, key=lambda edit: edit.start)  # what goes to the end may be named first


def _find(lines: Sequence[str], wanted: Sequence[str], at: int, *, at_end: bool) -> int | None:
    """The first match from ``at`` on, by the strictest comparison that finds one."""
    last = len(lines) - len(wanted)
    places = [last] if at_end else range(at, last + 1)
    for form in (str, str.rstrip, str.strip):
        want = [form(line) for line in wanted]
        for place in places:
            if place >= at and [form(line) for line in lines[place : place + len(want)]] == want:
                return place
    return None


def _narrowed(hunk: Hunk, place: int) -> Iterator[Edit]:
    """Yield the hunk's edits without the lines that it keeps."""
    matcher = difflib.SequenceMatcher(None, hunk.old, hunk.new, autojunk=False)
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag != "equal":
            yield Edit(place + start, place + end, tuple(hunk.new[new_start:new_end]))
