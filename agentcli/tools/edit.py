"""search_replace: replaces an exact piece of a file and changes nothing else."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from agentcli.diff import unified_diff
from agentcli.errors import ToolError, ToolInputError
from agentcli.messages import Outcome
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.files import load
from agentcli.tools.nearest import explain_miss
from agentcli.tools.textfile import decode, dominant_newline

MAX_PLACES = 20
"""The most line numbers that an answer lists."""


async def search_replace(
    context: ToolContext, path: str, old: str, new: str, replace_all: bool = False
) -> ToolOutput:
    """Replace a piece of a file.

    Args:
        path: The file, relative to the workspace.
        old: The text to replace, exactly as it is in the file.
        new: The text to put in its place.
        replace_all: Replace every occurrence instead of the only one.
    """
    if not old:
        raise ToolInputError('"old" is empty; use write_file to create a file', path="old")
    if old == new:
        raise ToolInputError('"old" and "new" are the same; nothing would change', path="new")
    before = await load(context, path)
    file = decode(before, path)
    text = Newlines(file.text)
    wanted, replacement = _plain(old), _plain(new)
    places = text.find(wanted)
    if not places:
        # In a thread, like diffs: it can take a second in a large file.
        answer = await asyncio.to_thread(explain_miss, text.plain, wanted, path)
        return ToolOutput(answer, Outcome.ERROR, paths=(path,), data={"error": "NotFound"})
    lines = text.line_numbers(places)
    if not replace_all and (len(places) > 1 or text.overlaps(wanted, places[0])):
        where = _listed(lines)
        raise ToolError(
            f"old text found more than once in {path}, {where}. Add lines around it so that it "
            "is found once, or set replace_all"
        )
    after = text.replaced(places, wanted, replacement)
    if after == file.text:
        raise ToolError("nothing would change: old and new differ only in their line endings")
    data = file.encode(after, path)
    await context.environment.write(path, data, expect=before)
    context.seen.edited(context.place(path), before, data)
    noun = "occurrence" if len(places) == 1 else "occurrences"
    return ToolOutput(
        f"replaced {len(places)} {noun} in {path} {_listed(lines)}",
        diff=await asyncio.to_thread(unified_diff, file.text, after, path),
        paths=(path,),
        data={"occurrences": len(places)},
    )


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n")


def _shared(one: str, other: str) -> int:
    """The length of the common prefix."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _listed(lines: list[int]) -> str:
    lines = list(dict.fromkeys(lines))
    shown = ", ".join(str(line) for line in lines[:MAX_PLACES])
    more = f" and {len(lines) - MAX_PLACES} more" if len(lines) > MAX_PLACES else ""
    return f"at {'line' if len(lines) == 1 else 'lines'} {shown}{more}"


class Newlines:
    r"""A text with ``\n`` for every line ending, for edits that keep the original line endings.

    Models write ``\n``; ``plain`` is the text as they see it. An edit of it is transferred to the
    original: only characters that differ are replaced, and new text gets the line endings around
    it.
    """

    def __init__(self, text: str) -> None:
        self.original = text
        self._default = dominant_newline(text)
        # Files in the classic Mac OS format have only lone carriage returns.
        self._mac = self._default == "\r"
        self.plain = text.replace("\r", "\n") if self._mac else _plain(text)
        self._crlf: list[int] = []  # places in ``plain`` where the original has two characters
        at = text.find("\r\n")
        while at != -1:
            self._crlf.append(at - len(self._crlf))
            at = text.find("\r\n", at + 2)

    def find(self, wanted: str) -> list[int]:
        """The offsets of the non-overlapping occurrences of ``wanted`` in ``plain``."""
        places = []
        at = self.plain.find(wanted)
        while at != -1:
            places.append(at)
            at = self.plain.find(wanted, at + len(wanted))
        return places

    def overlaps(self, wanted: str, place: int) -> bool:
        """Whether another occurrence starts inside the one at ``place``."""
        return self.plain.find(wanted, place + 1) != -1

    def line_numbers(self, places: list[int]) -> list[int]:
        """The line numbers, from 1, of offsets in ascending order."""
        lines, line, done = [], 1, 0
        for place in places:
            line += self.plain.count("\n", done, place)
            done = place
            lines.append(line)
        return lines

    def replaced(self, places: list[int], wanted: str, replacement: str) -> str:
        """The original text with ``wanted`` replaced at these places."""
        # The common prefix and suffix are kept with whatever line endings they have.
        head = _shared(wanted, replacement)
        tail = _shared(wanted[head:][::-1], replacement[head:][::-1])
        middle = replacement[head : len(replacement) - tail]
        parts, done = [], 0
        for place in places:
            start, end = place + head, place + len(wanted) - tail
            parts.append(self.original[done : self._at(start)])
            parts.append(middle.replace("\n", self._newline_near(start, end)))
            done = self._at(end)
        parts.append(self.original[done:])
        return "".join(parts)

    def _at(self, place: int) -> int:
        return place + bisect_left(self._crlf, place)

    def _newline_near(self, start: int, end: int) -> str:
        """The line ending of the replaced piece, else of the line it is in, else of the file."""
        if self._mac:
            return "\r"
        at = self.plain.find("\n", start, end)
        if at == -1:
            at = self.plain.find("\n", start)
        if at == -1:
            at = self.plain.rfind("\n", 0, start)
        if at == -1:
            return self._default
        place = bisect_left(self._crlf, at)
        is_crlf = place < len(self._crlf) and self._crlf[place] == at
        return "\r\n" if is_crlf else "\n"
