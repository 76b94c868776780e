"""Strings of a call that must be copied: substrings that occur exactly once, as the call writes
them: with JSON's escapes, or as they are between tags.

An edit names the text it replaces. Here such a string can only be written as a part of the file
as it is, and can only be closed where that part is unambiguous, so the edit cannot miss. A
``CopyConstraint`` follows the call that a row writes and narrows another constraint's mask within
those strings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from agentcli.errors import ModelError
from agentcli.inference.call_syntax import Path
from agentcli.inference.calls import Cursor, JsonCursor
from agentcli.inference.constrain import Constraint
from agentcli.model.tokenizer import Tokenizer

AMBIGUOUS = -1


class UniqueSubstring:
    """Which bytes may come next in a string that is copied from ``text``.

    Works on the text as JSON writes it (``json.dumps`` without ASCII escapes). ``alive`` are the
    places in it that the bytes so far may have led to, one for each occurrence.
    Raises ModelError for an empty text: nothing occurs in it.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ModelError("nothing can be copied from an empty text")
        units = [self._written(char) for char in text]
        self.escaped = b"".join(units)
        # Places between characters: within an escape or a character no copy begins or ends.
        self._between = {0}
        at = 0
        for unit in units:
            at += len(unit)
            self._between.add(at)
        self._start = sorted(self._between - {at})

    @staticmethod
    def _written(char: str) -> bytes:
        return json.dumps(char, ensure_ascii=False)[1:-1].encode()

    def start(self) -> tuple[int, ...]:
        return tuple(self._start)

    def walk(self, alive: tuple[int, ...], data: bytes) -> tuple[int, ...]:
        """Where the occurrences stand after ``data``; empty if there is none."""
        escaped = self.escaped
        return tuple(at + len(data) for at in alive if escaped.startswith(data, at))

    def unique(self, alive: tuple[int, ...]) -> bool:
        """Whether the string may be closed here."""
        return len(alive) == 1 and alive[0] in self._between

    def window(self, at: int, size: int) -> bytes:
        return self.escaped[at : at + size]


class PlainSubstring(UniqueSubstring):
    """Likewise where text is written as it is."""

    @staticmethod
    def _written(char: str) -> bytes:
        return char.encode("utf-8", "surrogatepass")


class OneLine(UniqueSubstring):
    """The string is one of the lines of ``text``, whole."""

    def __init__(self, text: str) -> None:
        lines = list(dict.fromkeys(filter(None, text.split("\n"))))
        super().__init__("".join(lines))
        # A line break as such stands in no string: nothing goes on over it.
        units = [json.dumps(line, ensure_ascii=False)[1:-1].encode() for line in lines]
        self.escaped = b"\n".join([*units, b""])
        ends = [at for at, byte in enumerate(self.escaped) if byte == ord("\n")]
        self._between = set(ends)
        self._start = [0, *(at + 1 for at in ends[:-1])]

    def unique(self, alive: tuple[int, ...]) -> bool:
        return any(at in self._between for at in alive)


# Asked when a string value may begin: the keys that lead to it, and the strings written so far by
# their paths. Returns what it must be copied from, or None for any string.
TextFor = Callable[[Path, Mapping[Path, str]], UniqueSubstring | None]


@dataclass
class _Place:
    """A state that tokens can be tried on."""

    cursor: Cursor
    source: UniqueSubstring | None = None  # of the value that is expected or open
    alive: tuple[int, ...] = ()
    closing: int = 0  # bytes of the end mark so far, if it is one: the text may hold them, too

    def copy(self) -> _Place:
        return _Place(self.cursor.copy(), self.source, self.alive, self.closing)


class CopyConstraint:
    """Narrows ``base`` in the strings that must be copied.

    Its language is JSON, or with ``cursor`` whatever that can follow.
    """

    def __init__(
        self,
        base: Constraint,
        tokenizer: Tokenizer,
        text_for: TextFor,
        cursor: Cursor | None = None,
    ) -> None:
        self._base = base
        self._vocabulary = _vocabulary(tokenizer)
        self._text_for = text_for
        first = cursor or JsonCursor()
        self._end = first.string_end
        self._marks = self._vocabulary.marks(first.string_start, self._end)
        self._places = [_Place(first)]  # one per accepted token, for rollback
        self._first: dict[UniqueSubstring, set[int]] = {}

    def allowed(self) -> Tensor | None:
        allowed = self._base.allowed()
        place = self._places[-1]
        cursor = place.cursor
        if place.source is not None and cursor.string is not None:
            bits = np.zeros(self._vocabulary.size, dtype=np.bool_)
            bits[list(self._continuations(place))] = True
            known = torch.from_numpy(bits)
            return known if allowed is None else known[: len(allowed)] & allowed[: len(known)]
        if allowed is None or cursor.outside:
            return allowed
        if cursor.string is not None and cursor.expects != "key":
            return allowed
        # Between values the grammar leaves few tokens; those that open a string are tried.
        allowed = allowed.clone()
        size = min(len(allowed), self._vocabulary.size)
        for token in (allowed[:size] & self._marks.opening[:size]).nonzero()[:, 0].tolist():
            allowed[token] = self._advanced(place, self._vocabulary.of(token)) is not None
        return allowed

    def accept(self, token: int) -> None:
        self._base.accept(token)
        data = self._vocabulary.of(token) or self._vocabulary.special.get(token, b"")
        place = self._advanced(self._places[-1], data)
        if place is None:
            raise ModelError(f"token {token} is not part of the text that is copied")
        self._places.append(place)

    def rollback(self, count: int) -> None:
        self._base.rollback(count)
        if count:
            del self._places[-count:]

    def fork(self) -> CopyConstraint:
        other = copy.copy(self)
        other._base = self._base.fork()
        other._places = [self._places[-1]]
        return other

    @property
    def finished(self) -> bool:
        return self._base.finished

    def _continuations(self, place: _Place) -> set[int]:
        """Tokens that go on with the copy, or close it where it is unambiguous."""
        source = place.source
        assert source is not None
        fresh = not place.cursor.string
        if fresh and source in self._first:  # the whole text is looked through once only
            return self._first[source]
        vocabulary, closing = self._vocabulary, self._marks.closing
        tokens = set(self._marks.goes_on[place.closing]) if place.closing else set()
        ends: dict[bytes, int] = {}  # what tokens may write -> where its only occurrence ends
        for at in place.alive:
            window = source.window(at, vocabulary.longest)
            for size in range(1, len(window) + 1):
                piece = window[:size]
                if piece not in vocabulary.prefixes:
                    break
                ends[piece] = AMBIGUOUS if piece in ends else at + size
        for piece, end in ends.items():
            tokens.update(vocabulary.by_bytes.get(piece, ()))
            if end != AMBIGUOUS and source.unique((end,)):
                tokens.update(closing.get(piece, ()))
        if self._closes(place):
            tokens.update(closing.get(b"", ()))
        if fresh:
            self._first[source] = tokens
        return tokens

    @staticmethod
    def _closes(place: _Place) -> bool:
        assert place.source is not None
        return bool(place.cursor.string) and place.source.unique(place.alive)

    def _advanced(self, place: _Place, data: bytes) -> _Place | None:
        """The place after ``data``; None if that breaks a copy."""
        place = place.copy()
        cursor = place.cursor
        for byte in data:
            inside = place.source is not None and cursor.string is not None
            if inside and not self._step(place, byte):
                return None
            closed = cursor.string is None
            cursor.feed(byte)
            if closed and cursor.string is not None and cursor.expects == "value":
                self._open(place)
            elif inside and cursor.string is None:
                place.source, place.closing = None, 0
        return place

    def _step(self, place: _Place, byte: int) -> bool:
        assert place.source is not None
        if place.closing and self._end[place.closing] == byte:
            place.closing += 1
        else:
            place.closing = int(self._end[0] == byte and self._closes(place))
        place.alive = place.source.walk(place.alive, bytes([byte]))
        return bool(place.alive or place.closing)

    def _open(self, place: _Place) -> None:
        place.source = self._text_for(place.cursor.path(), place.cursor.strings)
        if place.source is None:
            return
        place.alive = place.source.start()


class _Vocabulary:
    """Tokens by their bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = {token: text.encode() for text, token in tokenizer.special.items()}
        self.special = special
        self.size = tokenizer.vocab_size
        self._bytes = [b"" if i in special else tokenizer.token_bytes(i) for i in range(self.size)]
        self.by_bytes: dict[bytes, list[int]] = {}
        self.prefixes: set[bytes] = set()
        self._marks: dict[tuple[bytes, bytes], _Marks] = {}
        for token, data in enumerate(self._bytes):
            if not data:
                continue
            self.by_bytes.setdefault(data, []).append(token)
            self.prefixes.update(data[:size] for size in range(1, len(data) + 1))
        self.longest = max(map(len, self._bytes), default=0)

    def of(self, token: int) -> bytes:
        return self._bytes[token] if 0 <= token < self.size else b""

    def marks(self, start: bytes, end: bytes) -> _Marks:
        """For strings that begin after ``start`` and end at ``end``."""
        if (start, end) not in self._marks:
            self._marks[start, end] = _Marks(self._bytes, start, end)
        return self._marks[start, end]


class _Marks:
    """Tokens by what they do to a string that stands between two marks."""

    def __init__(self, vocabulary: Sequence[bytes], start: bytes, end: bytes) -> None:
        self.opening = torch.tensor([start in data for data in vocabulary])  # (V,) bool
        self.closing: dict[bytes, list[int]] = {}  # by what stands before the end or its beginning
        self.goes_on: list[list[int]] = [[] for _ in end]  # by how much of the end there was
        for token, data in enumerate(vocabulary):
            for at in (i for i, byte in enumerate(data) if byte == end[0]):
                if _agree(data[at:], end):
                    self.closing.setdefault(data[:at], []).append(token)
            for size in range(1, len(end)):
                if data and _agree(data, end[size:]):
                    self.goes_on[size].append(token)


def _agree(a: bytes, b: bytes) -> bool:
    """Whether one begins the other."""
    return a.startswith(b) or b.startswith(a)


_known: WeakKeyDictionary[Tokenizer, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(tokenizer: Tokenizer) -> _Vocabulary:
    if tokenizer not in _known:
        _known[tokenizer] = _Vocabulary(tokenizer)
    return _known[tokenizer]
