"""Calls of an editing tool in which the new text is the old one with one span replaced.

A small model copies badly once it has begun to change something, and a repair changes little.
So the search is held to "a piece of the file with one contiguous span replaced by any text": the
model is read along the copy of the old text; wherever it would leave the copy it may write what it
likes, and from each place where it would come back the rest is the old text again. Which span, and
what stands in its place, the model's own probabilities decide; nothing here knows code.

Best first by the log probability of all that was said, less what a large change costs: what a
model writes on is likely word for word, but a fault is small. A whole candidate is then read once
more by the model, in its usual tokens, and takes its turn by what that gives.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentcli.diff import changed_tokens
from agentcli.inference.engine import Engine
from agentcli.model.kv_cache import KVCache, Piece

LEAVINGS = 12
"""Tokens that are looked at in each place of the copy."""
FURTHER = 4
"""Tokens with which a replacement may go on,"""
RETURNS = 4
"""and places of the old text to which it may come back, from each state."""
LONGEST = 40
"""Tokens of a replacement."""
COPIED = 0.3
"""What the log probability of a copied token counts for: to go on copying says little,"""
PLACE = 0.2
"""and what that of the place counts for, which is judged by other things as well."""
LARGE = 1.2
"""What every word or sign beyond the first costs that is written, or that goes."""
AGAIN = 12
"""Characters of the old text after which a replacement has come back to it."""
UNLIKELY = -9.0
"""Log probability of a token below which it is left out."""


TAIL = '"}}'
"""What closes the string, which is the call's last."""


@dataclass(frozen=True)
class Variant:
    """The tokens of a whole call; ``logprob`` is that of all of them together, as they count."""

    tokens: list[int]
    logprob: float


@dataclass(frozen=True)
class Edit:
    """A call up to the string that varies, with its quote, and what it is a variant of.

    Both as JSON writes them.
    """

    head: str
    old: str

    @classmethod
    def at(cls, tool: str, arguments: Mapping[str, str], name: str, source: str) -> Edit:
        """The edit of a tool whose ``arguments`` before ``name`` are these."""
        said = {"name": tool, "arguments": {**arguments, name: ""}}
        return cls.of(json.dumps(said, ensure_ascii=False)[: -len(TAIL)], source)

    @classmethod
    def of(cls, head: str, source: str) -> Edit:
        """``source`` names the argument that the string is a variant of."""
        old: str = json.loads(head + TAIL)["arguments"][source]
        return cls(head, json.dumps(old, ensure_ascii=False)[1:-1])


@dataclass(order=True)
class _Step:
    cost: float
    number: int
    kind: str = field(compare=False)
    edit: Edit = field(compare=False)
    tokens: list[int] = field(compare=False)
    said: float = field(compare=False, default=0.0)  # the cost without that of a large change
    text: str = field(compare=False, default="")  # of the string, so far or whole
    left: int = field(compare=False, default=0)  # where the copy was left, in characters
    wrote: int = field(compare=False, default=0)  # tokens since


@dataclass
class _Copy:
    """The call that changes nothing: its tokens, the log probability before each, ways back."""

    tokens: list[int]
    before: list[float]
    returns: list[tuple[int, int]]  # (place in the old text, the token that goes on from there)
    held: Piece


class Variants:
    """The search over any number of edits, which ``add`` takes in at any time.

    ``before`` is all that stands before a call's JSON, ``closing`` the tokens after it.
    """

    def __init__(
        self, engine: Engine, before: Sequence[int], closing: Sequence[int], cache: KVCache
    ) -> None:
        self._engine = engine
        self._before = list(before)
        self._closing = list(closing)
        self._cache = cache
        self._special = frozenset(engine.tokenizer.special.values())
        self._heap: list[_Step] = []
        self._pushed = 0
        self._seen: set[tuple[str, str]] = set()
        self._known: set[Edit] = set()
        self._copies: dict[Edit, _Copy] = {}

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def best(self) -> float:
        """The log probability of what comes next; minus infinity where there is nothing."""
        return -self._heap[0].cost if self._heap else -math.inf

    def add(self, edit: Edit, cost: float = 0.0) -> None:
        """Look at the edit when its turn has come by this cost alone."""
        if edit.old and edit not in self._known:
            self._known.add(edit)
            self._push(cost, "copy", edit, [])

    def _leave(self, step: _Step) -> None:
        """All likely ways to leave the copy of an edit's old text."""
        edit = step.edit
        tokens = self._encode(edit.head + edit.old + TAIL)
        rows = self._read(tokens, 0, len(tokens))
        held = self._cache.piece(len(self._before))
        copy = self._copies[edit] = _Copy(tokens, [-step.cost], self._ways_back(edit), held)
        place = -len(edit.head)
        for at, token in enumerate(tokens):
            after = place + len(self._piece(token))
            if after > 0 and place <= len(edit.old):
                for value, other in _likeliest(rows[at], LEAVINGS):
                    if other != token:
                        cost = -(copy.before[-1] + value)
                        self._begin(cost, edit, [*tokens[:at], other], max(place, 0), 1)
            weight = PLACE if after <= 0 else COPIED
            copy.before.append(copy.before[-1] + weight * float(rows[at][token]))
            place = after

    def advance(self) -> Variant | None:
        """One step of the search; a variant where that was its last.

        Raises IndexError where there is nothing more.
        """
        step = heapq.heappop(self._heap)
        edit = step.edit
        match step.kind:
            case "copy":
                self._leave(step)
            case "part":
                self._go_on(step)
            case "whole":
                tokens = [*self._encode(edit.head + step.text + TAIL), *self._closing]
                copy = self._copies[edit]
                same = _shared(tokens, copy.tokens)
                rows = self._read(tokens, same, len(tokens) - 1, copy.held)
                said = sum(
                    float(row[token]) for row, token in zip(rows, tokens[same:], strict=True)
                )
                cost = -(copy.before[same] + said)
                self._push(cost, "read", edit, tokens, large=step.cost - step.said)
            case _:
                return Variant(step.tokens, -step.cost)
        return None

    def _begin(self, cost: float, edit: Edit, tokens: list[int], left: int, wrote: int) -> None:
        """Take in what was said since the copy was left, if it is something else than the copy."""
        if tokens[-1] in self._special:
            return
        said = self._engine.tokenizer.decode(tokens)
        if not said.startswith(edit.head):
            return
        text = said[len(edit.head) :]
        end = _end_of_string(text)
        if end is not None:
            if TAIL.startswith(text[end:]):
                self._whole(cost, edit, text[:end])
        elif not edit.old.startswith(text) and not _has_come_back(text, edit.old, left):
            large = _large(0, changed_tokens(edit.old, text[left:])[1])
            self._push(cost, "part", edit, tokens, text, left, wrote, large=large)

    def _go_on(self, step: _Step) -> None:
        """Come back to the old text where that is likely, or write on."""
        edit, tokens = step.edit, step.tokens
        (row,) = self._read(tokens, len(tokens), len(tokens), self._copies[edit].held)
        backs = [
            (float(row[token]), place)
            for place, token in self._copies[edit].returns
            if place >= step.left
        ]
        for value, place in heapq.nlargest(RETURNS, backs):
            if value > UNLIKELY:
                self._whole(step.said - value, edit, step.text + edit.old[place:])
        if step.wrote < LONGEST:
            for value, token in _likeliest(row, FURTHER):
                self._begin(step.said - value, edit, [*tokens, token], step.left, step.wrote + 1)

    def _whole(self, cost: float, edit: Edit, text: str) -> None:
        key = (edit.head, text)
        if text != edit.old and key not in self._seen and _is_string(text):
            self._seen.add(key)
            large = _large(*changed_tokens(_plain(edit.old), _plain(text)))
            self._push(cost, "whole", edit, [], text, large=large)

    def _ways_back(self, edit: Edit) -> list[tuple[int, int]]:
        places, at = {len(edit.old)}, 0
        for token in self._encode(edit.old):
            places.add(at)
            at += len(self._piece(token))
        rest = edit.old + TAIL
        return [(place, self._encode(rest[place:])[0]) for place in sorted(places)]

    @torch.inference_mode()
    def _read(self, tokens: list[int], first: int, last: int, held: Piece | None = None) -> Tensor:
        """Log probabilities (last - first + 1, V) of what stands at the places of the call."""
        cache, model = self._cache, self._engine.model
        whole = [*self._before, *tokens[:last]]
        wanted = len(self._before) + first - 1
        shared = min(_shared(cache.row_tokens(), whole), wanted)
        if held is not None and shared >= held.start:
            again = min(_shared(held.tokens, tokens), wanted - held.start)
            if held.start + again > shared:
                cache.put_back(held, again)
                shared = cache.length
        cache.truncate(shared)
        piece = torch.tensor([whole[shared:]], device=model.device)
        hidden = model.hidden(piece, cache)[0, first - last - 1 :]
        return torch.log_softmax(model.logits(hidden), dim=-1).cpu()

    def _push(
        self,
        cost: float,
        kind: str,
        edit: Edit,
        tokens: list[int],
        text: str = "",
        left: int = 0,
        wrote: int = 0,
        large: float = 0.0,
    ) -> None:
        self._pushed += 1
        step = _Step(cost + large, self._pushed, kind, edit, tokens, cost, text, left, wrote)
        heapq.heappush(self._heap, step)

    def _encode(self, text: str) -> list[int]:
        return self._engine.tokenizer.encode(text)

    def _piece(self, token: int) -> str:
        return self._engine.tokenizer.decode([token])


def _large(gone: int, come: int) -> float:
    """What a change costs by its size, in words and signs."""
    return LARGE * max(0, max(gone, come) - 1)


def _plain(text: str) -> str:
    """What JSON writes so."""
    said: str = json.loads(f'"{text}"')
    return said


def _likeliest(row: Tensor, count: int) -> list[tuple[float, int]]:
    values, tokens = torch.topk(row, count)
    pairs = zip(values.tolist(), tokens.tolist(), strict=True)
    return [(value, token) for value, token in pairs if value > UNLIKELY]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    return next(at for at in range(size) if one[at] != other[at])


def _end_of_string(text: str) -> int | None:
    """Where the first quote stands that is not escaped."""
    at = 0
    while at < len(text):
        if text[at] == '"':
            return at
        at += 2 if text[at] == "\\" else 1
    return None


def _has_come_back(text: str, old: str, left: int) -> bool:
    """Whether it has gone on with the old text for long enough to be one change before it."""
    return len(text) - left > AGAIN and text[-AGAIN:] in old[left:]


def _is_string(text: str) -> bool:
    """Whether it can stand between quotes in JSON."""
    try:
        _plain(text)
    except ValueError:
        return False
    return "\ufffd" not in text
