"""Where in a turn a reader stands: ``CallScanner`` splits an answer into text, thinking and calls;
``CallCursor`` follows the bytes of one for a constraint. What calls look like is in
``call_syntax.py``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from agentcli.inference.call_syntax import THINK, CallSyntax, Path, Piece
from agentcli.inference.tagged import TagCursor, TagReader

QUOTE = 0x22
_SPACE = frozenset(b" \t\r\n")


@dataclass
class JsonCursor:
    """Where in a JSON text a row stands, byte by byte. Expects valid JSON: a grammar sees to it."""

    keys: list[str | None] = field(default_factory=list)  # one per open object or list
    expects: str = "value"  # value, key, colon or more (a comma or an end)
    string: bytearray | None = None  # of the open string, escapes and all
    strings: dict[Path, str] = field(default_factory=dict)
    string_start: ClassVar[bytes] = b'"'
    string_end: ClassVar[bytes] = b'"'

    @property
    def outside(self) -> bool:
        return False

    @property
    def done(self) -> bool:
        """Nothing is open."""
        return not self.keys and self.string is None

    def path(self) -> Path:
        return tuple(key for key in self.keys if key is not None)

    def copy(self) -> JsonCursor:
        other = copy.copy(self)
        other.keys, other.strings = list(self.keys), dict(self.strings)
        other.string = None if self.string is None else bytearray(self.string)
        return other

    def feed(self, byte: int) -> None:
        if self.string is not None:
            self._in_string(byte)
        elif byte == QUOTE:
            self.string = bytearray()
        elif byte in b"{[":
            self.keys.append("" if byte == 0x7B else None)
            self.expects = "key" if byte == 0x7B else "value"
        elif byte in b"}]":
            if self.keys:
                self.keys.pop()
            self.expects = "more"
        elif byte == 0x3A:
            self.expects = "value"
        elif byte == 0x2C:
            in_object = bool(self.keys) and self.keys[-1] is not None
            self.expects = "key" if in_object else "value"
        elif byte not in _SPACE and self.expects == "value":
            self.expects = "more"  # a number or a word

    def _in_string(self, byte: int) -> None:
        assert self.string is not None
        escapes = len(self.string) - len(self.string.rstrip(b"\\"))
        if byte != QUOTE or escapes % 2:
            self.string.append(byte)
            return
        try:
            text = json.loads(b'"' + self.string + b'"')
        except ValueError:
            text = ""
        if self.expects == "key":
            self.keys[-1] = text
            self.expects = "colon"
        else:
            self.strings[self.path()] = text
            self.expects = "more"
        self.string = None


class CallCursor:
    """A cursor for a whole turn: within a call it is the call's own."""

    def __init__(self, syntax: CallSyntax) -> None:
        self._syntax = syntax
        self._open = syntax.open.encode()
        # start (of the turn), text, head (after the opening), call
        self._place = "start" if syntax.bare else "text"
        self._tail = b""  # what was said last
        self._inner: JsonCursor | TagCursor = JsonCursor(expects="text")

    @property
    def outside(self) -> bool:
        """Not within a call."""
        return self._place != "call"

    @property
    def string_start(self) -> bytes:
        """What the mark before a string ends in."""
        return TagCursor.string_start if self._syntax.tagged else JsonCursor.string_start

    @property
    def string_end(self) -> bytes:
        return TagCursor.string_end if self._syntax.tagged else JsonCursor.string_end

    @property
    def expects(self) -> str:
        return self._inner.expects

    @property
    def string(self) -> bytearray | None:
        return self._inner.string

    @property
    def strings(self) -> dict[Path, str]:
        return self._inner.strings

    def path(self) -> Path:
        return self._inner.path()

    def copy(self) -> CallCursor:
        other = copy.copy(self)
        other._inner = self._inner.copy()
        return other

    def feed(self, byte: int) -> None:
        if self._place == "call":
            self._inner.feed(byte)
            if self._inner.done:
                self._place, self._tail = "head" if self._syntax.listed else "text", b""
                self._inner = JsonCursor(expects="text")
            return
        opens = byte == 0x7B and self._place in ("start", "head")
        if opens:
            self._begin()
            return
        if self._place == "head":
            self._tail += bytes([byte])
            return
        if self._place == "start" and byte not in _SPACE:
            self._place = "text"
        self._tail = (self._tail + bytes([byte]))[-len(self._open) :]
        if self._tail == self._open:
            self._place, self._tail = "head", b""
            if self._syntax.tagged:
                self._place, self._inner = "call", TagCursor()

    def _begin(self) -> None:
        self._place, self._inner = "call", JsonCursor()
        if self._syntax.name_end:
            name = self._tail.decode("utf-8", "replace").removesuffix(self._syntax.name_end)
            self._inner.strings[()] = name  # no key of the arguments can take its place
        self._inner.feed(0x7B)


Cursor: TypeAlias = JsonCursor | CallCursor


class CallScanner:
    """Reads an answer piece by piece; ``thinking``: it goes on with a block already opened.

    White space before and after a block is dropped, as templates put their own there. ``schemas``
    are the parameters of the offered tools, by their names; only tagged calls need them.
    """

    def __init__(
        self,
        syntax: CallSyntax,
        *,
        thinking: bool = False,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._syntax = syntax
        self._schemas = schemas or {}
        # start, text, thinking, gap (after a block), head (after an opening), call, tags, code
        self._place = "start"
        self._marks = {THINK[0]: "thinking", syntax.open: "head"}
        if syntax.close:
            self._marks[syntax.close] = "gap"
        if thinking:
            self._place = "thinking"
        self._begun = False  # whether the block has any text
        self._held = ""  # may be the beginning of a mark, or white space before one
        self._json = JsonCursor()
        self._tags = TagReader({})
        self._arguments = ""  # not yet sent
        self._named = self._in_arguments = self._done = False

    def feed(self, text: str) -> Iterator[Piece]:
        """What this text completes."""
        for char in text:
            if self._place in ("start", "text", "thinking", "gap"):
                yield from self._prose(char)
            elif self._place == "head":
                yield from self._head(char)
            elif self._place == "code":
                self._held += char
            elif self._place == "tags":
                yield from self._tagged(char)
            else:
                yield from self._call(char)
        if self._place in ("call", "tags"):
            yield from self._flush()

    def finish(self) -> Iterator[Piece]:
        """What is left. A call that was cut has no end."""
        held = self._held
        if self._place == "code" and held.strip():
            yield Piece("name", self._syntax.code_tool)
            yield Piece("arguments", json.dumps({"code": held.strip()}, ensure_ascii=False))
            yield Piece("end")
        elif self._place in ("start", "text", "thinking") and held:
            yield Piece("thinking" if self._place == "thinking" else "text", held)
        elif self._place == "head" and held.strip(" ];\n"):
            yield Piece("text", held)
        elif self._place == "tags" and not self._tags.named and self._tags.held.strip():
            yield Piece("text", self._tags.held)

    def _prose(self, char: str) -> Iterator[Piece]:
        thinking = self._place == "thinking"
        marks = {THINK[1]: "gap"} if thinking else self._marks
        if char.isspace() and (self._place == "gap" or (thinking and not self._begun)):
            return
        if self._place in ("start", "gap") and not char.isspace():
            if char == "{" and self._syntax.bare:
                yield from self._open_call()
                return
            self._place = "text"
        self._begun = True
        self._held += char
        for mark, place in marks.items():
            if self._held.endswith(mark):
                before = self._held.removesuffix(mark).rstrip()
                if before:
                    yield Piece("thinking" if thinking else "text", before)
                self._place, self._held, self._begun = place, "", False
                if place == "head" and self._syntax.tagged:
                    self._place, self._tags = "tags", TagReader(self._schemas)
                return
        free = self._free(marks)
        if free:
            yield Piece("thinking" if thinking else "text", self._held[:free])
            self._held = self._held[free:]

    def _free(self, marks: dict[str, str]) -> int:
        """How many of the held characters are surely no mark nor white space before one."""
        held = self._held
        begun = max(
            (n for mark in marks for n in range(1, len(mark)) if held.endswith(mark[:n])), default=0
        )
        return len(held[: len(held) - begun].rstrip())

    def _head(self, char: str) -> Iterator[Piece]:
        if char == "{":
            yield from self._open_call()
        elif self._syntax.code_tool and not char.isspace() and char != ";":
            self._place, self._held = "code", char
        else:
            self._held += char

    def _open_call(self) -> Iterator[Piece]:
        syntax = self._syntax
        self._json, self._arguments = JsonCursor(), ""
        self._named = self._in_arguments = self._done = False
        self._place = "call"
        if not syntax.arguments:
            self._named = self._in_arguments = True
            yield Piece("name", self._held.split("[CALL_ID]")[0].removesuffix(syntax.name_end))
        self._held = ""
        yield from self._call("{")

    def _call(self, char: str) -> Iterator[Piece]:
        cursor, syntax = self._json, self._syntax
        begins = cursor.keys == [syntax.arguments] and cursor.expects == "value"
        if begins and cursor.string is None and not char.isspace():
            self._in_arguments = True
        if self._in_arguments and not self._done:
            self._arguments += char
        for byte in char.encode("utf-8", "surrogatepass"):
            cursor.feed(byte)
        if not self._named and ("name",) in cursor.strings:
            self._named = True
            yield Piece("name", cursor.strings[("name",)])
        ended = cursor.string is None and cursor.expects == "more"
        if self._in_arguments and ended and len(cursor.keys) == (1 if syntax.arguments else 0):
            self._done = True
        if ended and not cursor.keys:
            if not self._named:
                yield Piece("name", "invalid_call")
                self._named = True
            yield from self._flush()
            yield Piece("end")
            self._place, self._held = "head" if syntax.listed or syntax.bare else "gap", ""

    def _tagged(self, char: str) -> Iterator[Piece]:
        for piece in self._tags.feed(char):
            if piece.kind == "arguments":
                self._named = True
                self._arguments += piece.text
            else:
                yield from self._flush()
                yield piece
        if self._tags.done:
            self._place, self._named = "gap", False

    def _flush(self) -> Iterator[Piece]:
        if self._named and self._arguments:
            yield Piece("arguments", self._arguments)
            self._arguments = ""
