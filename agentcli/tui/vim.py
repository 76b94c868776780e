"""Vim's normal and insert mode for the prompt, independent of the screen.

Each key of normal mode takes a text with a cursor and returns the new ones. In insert mode the
prompt itself inserts text; ``leave_insert`` is called when that mode ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto

from agentcli.tui import vim_motions as motions
from agentcli.tui.vim_motions import END_OF_LINE, Span, Target

_COUNT = r"(?:[1-9]\d*)?"
_MOTION = r"[hjklwbeWBE^$G;,]|(?<!\d)0|gg|[fFtT]."
_COMMAND = re.compile(
    rf"(?P<n>{_COUNT})(?:"
    rf"(?P<op>[dcy])(?P<m>{_COUNT})(?P<target>{_MOTION}|(?P=op)|[ia]w)"
    rf"|(?P<motion>{_MOTION})|(?P<do>[xXsSiaIAoOpPuDCYJ~.]|r.))",
    re.DOTALL,
)
_BEGUN = re.compile(rf"{_COUNT}(?:[gfFtTr]|[dcy]{_COUNT}[gfFtTia]?)?")
_ARROWS = {"left": "h", "right": "l", "up": "k", "down": "j", "backspace": "h", "space": "l"}
_AS_OPERATOR = {
    "x": "dl",
    "X": "dh",
    "s": "cl",
    "S": "cc",
    "D": "d$",
    "C": "c$",
    "Y": "yy",
}
_MOST = 9999
"""Upper limit of counts, so that no command takes forever."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the offset of the cursor."""

    text: str
    at: int


class Wish(Enum):
    """A request to the prompt: the earlier or the later text of its history."""

    EARLIER = auto()
    LATER = auto()


@dataclass(frozen=True, slots=True)
class _Change:
    """A command for ``.`` to repeat, with the text inserted by it."""

    keys: str
    count: int | None
    inserted: str | None = None


class Vim:
    """See the module docstring. Starts in insert mode, unlike vim itself."""

    def __init__(self) -> None:
        self.inserting = True
        self._pending = ""
        self._register, self._by_lines = "", False
        self._found = ""
        self._column: int | None = None
        self._last: _Change | None = None
        self._before_insert: Text | None = None
        self._undo: list[Text] = []
        self._redo: list[Text] = []

    @property
    def pending(self) -> str:
        """The keys of an incomplete command."""
        return self._pending

    def insert(self) -> None:
        """Start again in insert mode with a new text."""
        self.inserting, self._pending = True, ""
        self._before_insert = None
        self._undo.clear()
        self._redo.clear()

    def leave_insert(self, now: Text) -> Text:
        """Escape in insert mode: switch to normal mode."""
        self.inserting = False
        before, self._before_insert = self._before_insert, None
        if before is None:
            before = Text("", 0)
            self._undo.append(before)
        elif self._last is not None and self._last.inserted is not None:
            difference = difference_of(before.text, now.text)
            self._last = replace(self._last, inserted=difference[2] if difference else "")
        return self._standing(replace(now, at=now.at - 1 if _column(now) else now.at))

    def cancel(self) -> bool:
        """Escape in normal mode: drop an incomplete command; False if there is none."""
        begun, self._pending = bool(self._pending), ""
        return begun

    def press(self, key: str, now: Text) -> Text | Wish | None:
        """Handle a key of normal mode: a character or a key's name. None if vim does not use it."""
        if key == "ctrl+r":
            return self._back(self._redo, self._undo, now)
        if len(key) > 1 and (key := _ARROWS.get(key, "") if not self._pending else "") == "":
            self._pending = ""
            return None
        self._pending += key
        match = _COMMAND.fullmatch(self._pending)
        if match is None:
            if not _BEGUN.fullmatch(self._pending):
                self._pending = ""
            return now
        self._pending = ""
        count = _product(match["n"], match["m"])
        if match["motion"]:
            return self._move(match["motion"], count, now)
        return self._do((match["op"] or "") + (match["target"] or match["do"] or ""), count, now)

    # -- moving ------------------------------------------------------------------------------

    def _move(self, motion: str, count: int | None, now: Text) -> Text | Wish:
        column = _column(now) if self._column is None else self._column
        found = self._target(motion, count, now, column)
        if motion in "jk":
            self._column = column
            if found is None:
                return Wish.LATER if motion == "j" else Wish.EARLIER
        else:
            self._column = END_OF_LINE if motion == "$" else None
        return now if found is None else self._standing(replace(now, at=found.at))

    def _target(self, motion: str, count: int | None, now: Text, column: int) -> Target | None:
        turned = motion == ","
        if motion in ";,":
            motion = self._found
            if not motion:
                return None
        elif motion[0] in "fFtT":
            self._found = motion
        if motion[0] not in "fFtT":
            return motions.target(now.text, now.at, motion, count, column)
        command = motion[0].swapcase() if turned else motion[0]
        at = motions.find(now.text, now.at, command, motion[1], count or 1)
        span = Span.INCLUSIVE if command in "ft" else Span.EXCLUSIVE
        return None if at is None else Target(at, span)

    def _standing(self, now: Text) -> Text:
        """Move the cursor onto a character, as normal mode requires."""
        at = max(0, min(now.at, len(now.text)))
        return Text(now.text, min(at, motions.last_in_line(now.text, at)))

    # -- changing ----------------------------------------------------------------------------

    def _do(self, keys: str, count: int | None, now: Text) -> Text:
        self._column = None
        match keys:
            case "u":
                return self._back(self._undo, self._redo, now)
            case ".":
                return self._again(count, now)
        after = self._changed(keys, count, now)
        if after is None:
            return now
        if keys[0] != "y" and keys != "Y":
            self._keep(now)
            self._last = _Change(keys, count, "" if self.inserting else None)
            if self.inserting:
                self._before_insert = after
        return after if self.inserting else self._standing(after)

    def _changed(self, keys: str, count: int | None, now: Text) -> Text | None:
        """The effect of a command, or None if it does not apply."""
        text, at, times = now.text, now.at, count or 1
        keys = _AS_OPERATOR.get(keys, keys)
        end = motions.line_end(text, at)
        match keys[0]:
            case "d" | "c" | "y":
                return self._operate(keys[0], keys[1:], count, now)
            case "r":
                if at + times > end:
                    return None
                return Text(text[:at] + keys[1] * times + text[at + times :], at + times - 1)
            case "~":
                stop = min(end, at + times)
                return Text(text[:at] + text[at:stop].swapcase() + text[stop:], stop)
            case "J":
                return _joined(now, max(1, times - 1))
            case "p" | "P":
                return self._put(now, times, before=keys == "P")
        self.inserting = True
        match keys:
            case "o":
                return Text(f"{text[:end]}\n{text[end:]}", end + 1)
            case "O":
                start = motions.line_start(text, at)
                return Text(f"{text[:start]}\n{text[start:]}", start)
            case "a":
                return Text(text, min(end, at + 1))
            case "A":
                return Text(text, end)
            case "I":
                return Text(text, motions.first_word(text, at))
            case _:
                return now

    def _operate(self, operator: str, motion: str, count: int | None, now: Text) -> Text | None:
        text, at = now.text, now.at
        if motion[-1] == "w" and motion[0] in "ia":
            start, end = motions.word_object(text, at, motion[0] == "a")
            return self._take(operator, now, start, end)
        if motion == operator:
            last = motions.vertical(text, at, (count or 1) - 1, 0) if (count or 1) > 1 else at
            return self._take_lines(operator, now, at, at if last is None else last)
        if motion in "wW" and operator == "c" and text[at : at + 1].strip():
            # As in vim, cw keeps the blanks after the word, and on a word's last letter changes
            # only that letter.
            big = motion == "W"
            if motions.word_end(text, at - 1, big) == at:
                if (count or 1) == 1:
                    return self._take(operator, now, at, at + 1)
                count = (count or 1) - 1
            motion = "E" if big else "e"
        found = self._target(motion, count, now, _column(now))
        if found is None:
            return None
        if found.span is Span.LINES:
            return self._take_lines(operator, now, *sorted((at, found.at)))
        start, end = sorted((at, found.at))
        end += found.span is Span.INCLUSIVE
        if "\n" in text[start:end] and found.span is Span.EXCLUSIVE:
            end = self._before_line(motion, count, now, start, end)
        return self._take(operator, now, start, end)

    def _before_line(self, motion: str, count: int | None, now: Text, start: int, end: int) -> int:
        """The end of an operator's range, adjusted so that it does not join two lines."""
        text = now.text
        if motion in "wW":
            before = motions.target(text, now.at, motion, count - 1, 0) if count else None
            last = now.at if before is None or count == 1 else before.at
            return min(end, max(start + 1, motions.line_end(text, last)))
        return end - 1 if end == motions.line_start(text, end) else end

    def _take(self, operator: str, now: Text, start: int, end: int) -> Text | None:
        if start == end and operator != "c":
            return None
        self._register, self._by_lines = now.text[start:end], False
        if operator == "y":
            return Text(now.text, start)
        self.inserting = operator == "c"
        return Text(now.text[:start] + now.text[end:], start)

    def _take_lines(self, operator: str, now: Text, first: int, last: int) -> Text:
        text = now.text
        start, end = motions.line_start(text, first), motions.line_end(text, last)
        self._register, self._by_lines = text[start:end], True
        if operator == "y":
            return Text(text, now.at if start == motions.line_start(text, now.at) else start)
        if operator == "c":
            self.inserting = True
            return Text(text[:start] + text[end:], start)
        if end < len(text):
            rest = text[:start] + text[end + 1 :]
        else:
            rest, start = text[: max(0, start - 1)], motions.line_start(text, max(0, start - 1))
        return Text(rest, motions.first_word(rest, start))

    def _put(self, now: Text, times: int, *, before: bool) -> Text | None:
        text, at, put = now.text, now.at, self._register
        if not put and not self._by_lines:
            return None
        if not self._by_lines:
            at = at if before else min(motions.line_end(text, at), at + 1)
            return Text(text[:at] + put * times + text[at:], at + len(put) * times - 1)
        lines = "\n".join([put] * times)
        if before:
            start = motions.line_start(text, at)
            return Text(f"{text[:start]}{lines}\n{text[start:]}", start)
        end = motions.line_end(text, at)
        return Text(f"{text[:end]}\n{lines}{text[end:]}", end + 1)

    # -- repeat and undo ---------------------------------------------------------------------

    def _again(self, count: int | None, now: Text) -> Text:
        last = self._last
        if last is None:
            return now
        count = count or last.count
        after = self._changed(last.keys, count, now)
        if after is None:
            return now
        self._keep(now)
        self._last = replace(last, count=count)
        if last.inserted is not None:
            self.inserting = False
            at = after.at
            text = after.text[:at] + last.inserted + after.text[at:]
            after = Text(text, at + max(0, len(last.inserted) - 1))
        return self._standing(after)

    def _keep(self, now: Text) -> None:
        self._undo.append(now)
        self._redo.clear()

    def _back(self, out: list[Text], into: list[Text], now: Text) -> Text:
        while out:
            found = out.pop()
            if found.text != now.text:
                into.append(now)
                return self._standing(found)
        return now


def _column(now: Text) -> int:
    return now.at - motions.line_start(now.text, now.at)


def _product(*counts: str | None) -> int | None:
    given = [min(_MOST, int(count[:5])) for count in counts if count]
    product = 1
    for count in given:
        product = min(_MOST, product * count)
    return product if given else None


def difference_of(before: str, after: str) -> tuple[int, int, str] | None:
    """(start, end, replacement) of the one range that differs; None if the texts are equal."""
    if before == after:
        return None
    most = min(len(before), len(after))
    start = next((at for at in range(most) if before[at] != after[at]), most)
    most -= start
    end = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    return start, len(before) - end, after[start : len(after) - end]


def _joined(now: Text, times: int) -> Text | None:
    """``J``: append the next ``times`` lines to this one."""
    text, at = now.text, now.at
    for _ in range(times):
        end = motions.line_end(text, at)
        if end == len(text):
            break
        rest = text[end + 1 :].lstrip(" \t")
        gap = "" if rest[:1] in ("", "\n", ")") or text[:end].endswith((" ", "\n")) else " "
        text, at = text[:end] + gap + rest, end
    return None if text == now.text else Text(text, at)
