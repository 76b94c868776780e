"""Constrains strings of a call to substrings of a file that occur exactly once.

An edit names the text it replaces. With this constraint, such a string can only be copied from the
file, and can only be closed when it occurs once there, so that the edit cannot miss.
``CopyConstraint`` tracks the call that a row writes, and narrows another constraint's mask within
those strings. It works on the text as the call spells it: JSON-escaped, or plain between tags.
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
from agentcli.text import BETWEEN_OPTIONS

AMBIGUOUS = -1


class UniqueSubstring:
    """Tracks the occurrences in ``text`` of a string that is written byte by byte.

    Works on the JSON-escaped text (``json.dumps`` without ASCII escapes). ``alive`` has the end of
    each occurrence of the bytes so far, as an offset into it.

    Raises:
        ModelError: the text is empty.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ModelError("nothing can be copied from an empty text")
        units = [self._written(char) for char in text]
        self.escaped = b"".join(units)
        # A copy begins and ends between characters, never within an escape or a character.
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
        """Return the occurrences that continue with ``data``."""
        escaped = self.escaped
        return tuple(at + len(data) for at in alive if escaped.startswith(data, at))

    def unique(self, alive: tuple[int, ...]) -> bool:
        """Whether the string may be closed here."""
        return len(alive) == 1 and alive[0] in self._between

    def window(self, at: int, size: int) -> bytes:
        return self.escaped[at : at + size]


class PlainSubstring(UniqueSubstring):
    """The same for text that is written without escapes."""

    @staticmethod
    def _written(char: str) -> bytes:
        return char.encode("utf-8", "surrogatepass")


class OneOf(UniqueSubstring):
    """Requires the string to be one of the options in ``text``, which ``BETWEEN_OPTIONS`` parts."""

    def __init__(self, text: str) -> None:
        options = list(dict.fromkeys(filter(None, text.split(BETWEEN_OPTIONS))))
        super().__init__("".join(options))
        # A JSON string has no raw newline, so no copy continues past the end of an option.
        units = [json.dumps(option, ensure_ascii=False)[1:-1].encode() for option in options]
        self.escaped = b"\n".join([*units, b""])
        ends = [at for at, byte in enumerate(self.escaped) if byte == ord("\n")]
        self._between = set(ends)
        self._start = [0, *(at + 1 for at in ends[:-1])]

    def unique(self, alive: tuple[int, ...]) -> bool:
        return any(at in self._between for at in alive)


# Takes the path of a string value that may begin, and the strings written so far, by path.
# Returns what the value must be copied from, or None if it may be any string.
TextFor = Callable[[Path, Mapping[Path, str]], UniqueSubstring | None]


@dataclass
class _State:
    """The state after some tokens."""

    cursor: Cursor
    source: UniqueSubstring | None = None  # of the value that is expected or open
    alive: tuple[int, ...] = ()
    closing: int = 0  # bytes of the end mark so far, though they may be part of the text, too

    def copy(self) -> _State:
        return _State(self.cursor.copy(), self.source, self.alive, self.closing)


class CopyConstraint:
    """Narrows ``base`` within the strings that must be copied.

    ``cursor`` tracks the position in the output; without one, the output must be JSON.
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
        self._state = _State(first)
        self._first: dict[UniqueSubstring, set[int]] = {}

    def allowed(self) -> Tensor | None:
        allowed = self._base.allowed()
        state = self._state
        cursor = state.cursor
        if state.source is not None and cursor.string is not None:
            bits = np.zeros(self._vocabulary.size, dtype=np.bool_)
            bits[list(self._continuations(state))] = True
            known = torch.from_numpy(bits)
            return known if allowed is None else known[: len(allowed)] & allowed[: len(known)]
        if allowed is None or cursor.outside:
            return allowed
        if cursor.string is not None and cursor.expects != "key":
            return allowed
        # Between values, the grammar allows few tokens: try each that opens a string.
        allowed = allowed.clone()
        size = min(len(allowed), self._vocabulary.size)
        for token in (allowed[:size] & self._marks.opening[:size]).nonzero()[:, 0].tolist():
            allowed[token] = self._advanced(state, self._vocabulary.of(token)) is not None
        return allowed

    def accept(self, token: int) -> None:
        self._base.accept(token)
        data = self._vocabulary.of(token) or self._vocabulary.special.get(token, b"")
        state = self._advanced(self._state, data)
        if state is None:
            raise ModelError(f"token {token} is not part of the text that is copied")
        self._state = state

    def fork(self) -> CopyConstraint:
        other = copy.copy(self)
        other._base = self._base.fork()
        return other

    @property
    def finished(self) -> bool:
        return self._base.finished

    def _continuations(self, state: _State) -> set[int]:
        """Return the tokens that continue the copy, or close it if it is unambiguous."""
        source = state.source
        assert source is not None
        fresh = not state.cursor.string
        if fresh and source in self._first:  # searching the whole text is slow
            return self._first[source]
        vocabulary, closing = self._vocabulary, self._marks.closing
        tokens = set(self._marks.continues[state.closing]) if state.closing else set()
        ends: dict[bytes, int] = {}  # bytes a token may add -> end of their only occurrence
        for at in state.alive:
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
        if self._closes(state):
            tokens.update(closing.get(b"", ()))
        if fresh:
            self._first[source] = tokens
        return tokens

    @staticmethod
    def _closes(state: _State) -> bool:
        assert state.source is not None
        return bool(state.cursor.string) and state.source.unique(state.alive)

    def _advanced(self, state: _State, data: bytes) -> _State | None:
        """Return the state after ``data``; None if that breaks a copy."""
        state = state.copy()
        cursor = state.cursor
        for byte in data:
            inside = state.source is not None and cursor.string is not None
            if inside and not self._step(state, byte):
                return None
            closed = cursor.string is None
            cursor.feed(byte)
            if closed and cursor.string is not None and cursor.expects == "value":
                self._open(state)
            elif inside and cursor.string is None:
                state.source, state.closing = None, 0
        return state

    def _step(self, state: _State, byte: int) -> bool:
        """Follow one byte of a copied string; return whether it continues the copy or ends it."""
        assert state.source is not None
        if state.closing and self._end[state.closing] == byte:
            state.closing += 1
        else:
            state.closing = int(self._end[0] == byte and self._closes(state))
        state.alive = state.source.walk(state.alive, bytes([byte]))
        return bool(state.alive or state.closing)

    def _open(self, state: _State) -> None:
        state.source = self._text_for(state.cursor.path(), state.cursor.strings)
        if state.source is None:
            return
        state.alive = state.source.start()


class _Vocabulary:
    """The tokens of a tokenizer by their bytes."""

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
        """Classify the tokens for strings that begin after ``start`` and end at ``end``."""
        if (start, end) not in self._marks:
            self._marks[start, end] = _Marks(self._bytes, start, end)
        return self._marks[start, end]


class _Marks:
    """Tokens by their effect on a string between two marks."""

    def __init__(self, vocabulary: Sequence[bytes], start: bytes, end: bytes) -> None:
        self.opening = torch.tensor([start in data for data in vocabulary])  # (V,) bool
        self.closing: dict[bytes, list[int]] = {}  # by the text before the end mark or its start
        self.continues: list[list[int]] = [[] for _ in end]  # by bytes of the end mark before it
        for token, data in enumerate(vocabulary):
            for at in (i for i, byte in enumerate(data) if byte == end[0]):
                if _agree(data[at:], end):
                    self.closing.setdefault(data[:at], []).append(token)
            for size in range(1, len(end)):
                if data and _agree(data, end[size:]):
                    self.continues[size].append(token)


def _agree(a: bytes, b: bytes) -> bool:
    """Whether one is a prefix of the other."""
    return a.startswith(b) or b.startswith(a)


_known: WeakKeyDictionary[Tokenizer, _Vocabulary] = WeakKeyDictionary()


def _vocabulary(tokenizer: Tokenizer) -> _Vocabulary:
    if tokenizer not in _known:
        _known[tokenizer] = _Vocabulary(tokenizer)
    return _known[tokenizer]
