"""Incremental parsers for a model's turn.

``CallScanner`` splits an answer into text, thinking and calls. ``CallCursor`` and ``JsonCursor``
track the position within a call byte by byte, for a constraint. ``call_syntax.py`` defines what
calls look like.
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
    """The position within a JSON text, fed byte by byte.

    The text must be valid JSON, which a grammar ensures.
    """

    keys: list[str | None] = field(default_factory=list)  # per open object or (None) list
    expects: str = "value"  # value, key, colon or more (a comma or an end)
    string: bytearray | None = None  # the open string so far, with its escapes
    strings: dict[Path, str] = field(default_factory=dict)  # complete string values
    string_start: ClassVar[bytes] = b'"'
    string_end: ClassVar[bytes] = b'"'

    @property
    def outside(self) -> bool:
        return False

    @property
    def done(self) -> bool:
        """Whether no object, list or string is open."""
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
    """The position within a whole turn; inside a call, it delegates to that call's cursor."""

    def __init__(self, syntax: CallSyntax) -> None:
        self._syntax = syntax
        self._open = syntax.open.encode()
        # start (of the turn), text, head (after the opening mark), call
        self._state = "start" if syntax.bare else "text"
        self._tail = b""  # the latest bytes, to find the opening mark or the name before a call
        self._inner: JsonCursor | TagCursor = JsonCursor(expects="text")

    @property
    def outside(self) -> bool:
        """Whether the position is outside any call."""
        return self._state != "call"

    @property
    def string_start(self) -> bytes:
        """The bytes that immediately precede a string."""
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
        if self._state == "call":
            self._inner.feed(byte)
            if self._inner.done:
                self._state, self._tail = "head" if self._syntax.listed else "text", b""
                self._inner = JsonCursor(expects="text")
            return
        opens = byte == 0x7B and self._state in ("start", "head")
        if opens:
            self._begin()
            return
        if self._state == "head":
            self._tail += bytes([byte])
            return
        if self._state == "start" and byte not in _SPACE:
            self._state = "text"
        self._tail = (self._tail + bytes([byte]))[-len(self._open) :]
        if self._tail == self._open:
            self._state, self._tail = "head", b""
            if self._syntax.tagged:
                self._state, self._inner = "call", TagCursor()

    def _begin(self) -> None:
        self._state, self._inner = "call", JsonCursor()
        if self._syntax.name_end:
            name = self._tail.decode("utf-8", "replace").removesuffix(self._syntax.name_end)
            self._inner.strings[()] = name  # the empty path cannot clash with an argument
        self._inner.feed(0x7B)


Cursor: TypeAlias = JsonCursor | CallCursor


class CallScanner:
    """Splits a streamed answer into pieces: text, thinking and calls.

    White space around a block is dropped, because chat templates add their own.

    Args:
        syntax: How the model writes calls.
        thinking: Whether the prompt has already opened a thinking block.
        schemas: The parameter schemas of the offered tools, by name. Only tagged calls need them.
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
        # start, text, thinking, gap (after a block), head (after an open mark), call, tags, code
        self._state = "start"
        self._marks = {THINK[0]: "thinking", syntax.open: "head"}
        if syntax.close:
            self._marks[syntax.close] = "gap"
        if thinking:
            self._state = "thinking"
        self._begun = False  # whether the block has any text
        self._held = ""  # text that may turn out to be a mark, or white space before one
        self._json = JsonCursor()
        self._tags = TagReader({})
        self._arguments = ""  # not yet emitted
        self._named = self._in_arguments = self._done = False

    def feed(self, text: str) -> Iterator[Piece]:
        """Yield the pieces that this text completes."""
        for char in text:
            if self._state in ("start", "text", "thinking", "gap"):
                yield from self._prose(char)
            elif self._state == "head":
                yield from self._head(char)
            elif self._state == "code":
                self._held += char
            elif self._state == "tags":
                yield from self._tagged(char)
            else:
                yield from self._call(char)
        if self._state in ("call", "tags"):
            yield from self._flush()

    def finish(self) -> Iterator[Piece]:
        """Yield what is left when the answer has ended. A call that was cut off gets no ``end``."""
        held = self._held
        if self._state == "code" and held.strip():
            yield Piece("name", self._syntax.code_tool)
            yield Piece("arguments", json.dumps({"code": held.strip()}, ensure_ascii=False))
            yield Piece("end")
        elif self._state in ("start", "text", "thinking") and held:
            yield Piece("thinking" if self._state == "thinking" else "text", held)
        elif self._state == "head" and held.strip(" ];\n"):
            yield Piece("text", held)
        elif self._state == "tags" and not self._tags.named and self._tags.held.strip():
            yield Piece("text", self._tags.held)

    def _prose(self, char: str) -> Iterator[Piece]:
        thinking = self._state == "thinking"
        marks = {THINK[1]: "gap"} if thinking else self._marks
        if char.isspace() and (self._state == "gap" or (thinking and not self._begun)):
            return
        if self._state in ("start", "gap") and not char.isspace():
            if char == "{" and self._syntax.bare:
                yield from self._open_call()
                return
            self._state = "text"
        self._begun = True
        self._held += char
        for mark, place in marks.items():
            if self._held.endswith(mark):
                before = self._held.removesuffix(mark).rstrip()
                if before:
                    yield Piece("thinking" if thinking else "text", before)
                self._state, self._held, self._begun = place, "", False
                if place == "head" and self._syntax.tagged:
                    self._state, self._tags = "tags", TagReader(self._schemas)
                return
        free = self._free(marks)
        if free:
            yield Piece("thinking" if thinking else "text", self._held[:free])
            self._held = self._held[free:]

    def _free(self, marks: dict[str, str]) -> int:
        """The number of held characters that cannot be part of a mark or of space before one."""
        held = self._held
        begun = max(
            (n for mark in marks for n in range(1, len(mark)) if held.endswith(mark[:n])), default=0
        )
        return len(held[: len(held) - begun].rstrip())

    def _head(self, char: str) -> Iterator[Piece]:
        if char == "{":
            yield from self._open_call()
        elif self._syntax.code_tool and not char.isspace() and char != ";":
            self._state, self._held = "code", char
        else:
            self._held += char

    def _open_call(self) -> Iterator[Piece]:
        syntax = self._syntax
        self._json, self._arguments = JsonCursor(), ""
        self._named = self._in_arguments = self._done = False
        self._state = "call"
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
            self._state, self._held = "head" if syntax.listed or syntax.bare else "gap", ""

    def _tagged(self, char: str) -> Iterator[Piece]:
        for piece in self._tags.feed(char):
            if piece.kind == "arguments":
                self._named = True
                self._arguments += piece.text
            else:
                yield from self._flush()
                yield piece
        if self._tags.done:
            self._state, self._named = "gap", False

    def _flush(self) -> Iterator[Piece]:
        if self._named and self._arguments:
            yield Piece("arguments", self._arguments)
            self._arguments = ""
