"""Best-first search for edits whose new text is the old text with one contiguous span replaced.

A small model copies badly after its first change, and a repair changes little. So the model writes
only the replacement: it is scored along a copy of the old text, branches off wherever another token
is likely, and rejoins the old text wherever that is likely. Its probabilities alone decide which
span to replace and by what; nothing here knows any programming language.

Candidates are ordered by log probability minus a cost for the size of the change: a model's long
continuations are likely word for word, but most faults are small. When a candidate is complete, the
model scores it once more in its usual tokenization, which decides when it is returned.
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
from agentcli.errors import ContextLengthError
from agentcli.inference.engine import Engine
from agentcli.model.kv_cache import KVCache, Snapshot, common_prefix

BRANCHES = 12
"""Likeliest tokens considered at each position of the copy."""
CONTINUATIONS = 4
"""Likeliest tokens considered as the next one of a replacement."""
REJOINS = 4
"""Likeliest positions considered for rejoining the old text after each token of a replacement."""
MAX_REPLACEMENT = 40
"""Most tokens in a replacement."""
COPY_WEIGHT = 0.3
"""Weight of the log probabilities of copied tokens: that the model goes on copying says little."""
HEAD_WEIGHT = 0.2
"""Weight of the log probabilities before the string: where to edit has other evidence, too."""
HEAD_MOST = 1.5
"""The most that they cost: a line of a file that the model has not read would be out of reach."""
SIZE_COST = 1.2
"""Cost of each word or punctuation mark beyond the first that is added or removed."""
REJOINED = 12
"""Characters of old text in a row after which a replacement counts as having rejoined it."""
MIN_LOGPROB = -9.0
"""Log probability below which a token is not considered."""

TAIL = '"}}'
"""The end of a call whose last argument is the string that varies."""


@dataclass(frozen=True)
class Variant:
    """The tokens of a complete call; ``logprob`` is weighted, less the cost of its size."""

    tokens: list[int]
    logprob: float


@dataclass(frozen=True)
class Edit:
    """A call up to the opening quote of the varying string, and the old text.

    Both are escaped as in JSON.
    """

    head: str
    old: str

    @classmethod
    def at(cls, tool: str, arguments: Mapping[str, str], name: str, source: str) -> Edit:
        """Return the edit of argument ``name`` in a call of ``tool``.

        ``arguments`` precede it in the call; ``source`` is the one it is a variant of.
        """
        call = {"name": tool, "arguments": {**arguments, name: ""}}
        return cls.of(json.dumps(call, ensure_ascii=False)[: -len(TAIL)], source)

    @classmethod
    def of(cls, head: str, source: str) -> Edit:
        """Return the edit of the string opened by ``head``, a variant of argument ``source``."""
        old: str = json.loads(head + TAIL)["arguments"][source]
        return cls(head, json.dumps(old, ensure_ascii=False)[1:-1])


@dataclass(order=True)
class _Step:
    """An entry of the queue.

    ``kind`` is "copy" for an edit not looked at yet, "part" for an unfinished replacement, "whole"
    for a complete text, and "scored" for one that the model has scored.
    """

    cost: float
    number: int
    kind: str = field(compare=False)
    edit: Edit = field(compare=False)
    tokens: list[int] = field(compare=False)
    base_cost: float = field(compare=False, default=0.0)  # ``cost`` without the cost of the size
    text: str = field(compare=False, default="")  # the varying string, so far or complete
    left_at: int = field(compare=False, default=0)  # where it left the old text, in characters
    n_written: int = field(compare=False, default=0)  # tokens since then


@dataclass
class _Copy:
    """The call whose new text equals the old text."""

    tokens: list[int]
    before: list[float]  # the log probability of the tokens before each position
    rejoin_points: list[tuple[int, int]]  # (index in the old text, the token that follows there)
    snapshot: Snapshot


class Variants:
    """A search over any number of edits, which may be added at any time.

    Args:
        engine: Its model scores the candidates.
        before: All tokens before a call's JSON.
        closing: The tokens after it.
        cache: The KV cache to work in.
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
        """The log probability of the next step; minus infinity if there is none."""
        return -self._heap[0].cost if self._heap else -math.inf

    def add(self, edit: Edit, cost: float = 0.0) -> None:
        """Queue an edit with an initial cost, unless it was added before."""
        if edit.old and edit not in self._known:
            self._known.add(edit)
            self._push(cost, "copy", edit, [])

    def _branch_off(self, step: _Step) -> None:
        """Push every likely token at which the model could leave the edit's old text."""
        edit = step.edit
        tokens = self._encode(edit.head + edit.old + TAIL)
        rows = self._logprobs(tokens, 0, len(tokens))
        snapshot = self._cache.snapshot(len(self._before))
        copy = self._copies[edit] = _Copy(tokens, [-step.cost], self._rejoin_points(edit), snapshot)
        head = 0.0
        offset = -len(edit.head)  # of the token, in characters from the start of the old text
        for at, token in enumerate(tokens):
            after = offset + self._engine.tokenizer.characters(token)
            if after > 0 and offset <= len(edit.old):
                for value, other in _likeliest(rows[at], BRANCHES):
                    if other != token:
                        cost = -(copy.before[-1] + value)
                        self._add_part(cost, edit, [*tokens[:at], other], max(offset, 0), 1)
            if after <= 0:
                head += HEAD_WEIGHT * float(rows[at][token])
                copy.before.append(-step.cost + max(-HEAD_MOST, head))
            else:
                copy.before.append(copy.before[-1] + COPY_WEIGHT * float(rows[at][token]))
            offset = after

    def advance(self) -> Variant | None:
        """Take one step of the search; return the variant that it completed, if any.

        Raises:
            IndexError: the queue is empty.
        """
        step = heapq.heappop(self._heap)
        try:
            return self._take(step)
        except ContextLengthError:  # this call would be too long; others may be shorter
            return None

    def _take(self, step: _Step) -> Variant | None:
        edit = step.edit
        match step.kind:
            case "copy":
                self._branch_off(step)
            case "part":
                self._extend(step)
            case "whole":
                tokens = [*self._encode(edit.head + step.text + TAIL), *self._closing]
                copy = self._copies[edit]
                same = common_prefix(tokens, copy.tokens)
                rows = self._logprobs(tokens, same, len(tokens) - 1, copy.snapshot)
                logprob = sum(
                    float(row[token]) for row, token in zip(rows, tokens[same:], strict=True)
                )
                cost = -(copy.before[same] + logprob)
                self._push(cost, "scored", edit, tokens, size_cost=step.cost - step.base_cost)
            case _:
                return Variant(step.tokens, -step.cost)
        return None

    def _add_part(
        self, cost: float, edit: Edit, tokens: list[int], left_at: int, n_written: int
    ) -> None:
        """Push a replacement that was extended by one token, unless it only repeats old text."""
        if tokens[-1] in self._special:
            return
        written = self._engine.tokenizer.decode(tokens)
        if not written.startswith(edit.head):
            return
        text = written[len(edit.head) :]
        end = _closing_quote(text)
        if end is not None:
            if TAIL.startswith(text[end:]):
                self._add_whole(cost, edit, text[:end])
        # At first it may be a piece of the old token, as in ">" for ">="; the rest is left out.
        elif (n_written == 1 or not edit.old.startswith(text)) and not _has_rejoined(
            text, edit.old, left_at
        ):
            size_cost = _size_cost(0, changed_tokens(edit.old, text[left_at:])[1])
            self._push(cost, "part", edit, tokens, text, left_at, n_written, size_cost=size_cost)

    def _extend(self, step: _Step) -> None:
        """Let a replacement rejoin the old text where that is likely, or grow by one token."""
        edit, tokens = step.edit, step.tokens
        (row,) = self._logprobs(tokens, len(tokens), len(tokens), self._copies[edit].snapshot)
        rejoins = [
            (float(row[token]), place)
            for place, token in self._copies[edit].rejoin_points
            if place >= step.left_at
        ]
        for value, place in heapq.nlargest(REJOINS, rejoins):
            if value > MIN_LOGPROB:
                self._add_whole(step.base_cost - value, edit, step.text + edit.old[place:])
        if step.n_written < MAX_REPLACEMENT:
            for value, token in _likeliest(row, CONTINUATIONS):
                cost, extended = step.base_cost - value, [*tokens, token]
                self._add_part(cost, edit, extended, step.left_at, step.n_written + 1)

    def _add_whole(self, cost: float, edit: Edit, text: str) -> None:
        key = (edit.head, text)
        if text != edit.old and key not in self._seen and _is_escaped(text):
            self._seen.add(key)
            size_cost = _size_cost(*changed_tokens(_unescaped(edit.old), _unescaped(text)))
            self._push(cost, "whole", edit, [], text, size_cost=size_cost)

    def _rejoin_points(self, edit: Edit) -> list[tuple[int, int]]:
        places, at = {len(edit.old)}, 0
        for token in self._encode(edit.old):
            places.add(at)
            at += self._engine.tokenizer.characters(token)
        rest = edit.old + TAIL
        return [(place, self._encode(rest[place:])[0]) for place in sorted(places)]

    @torch.inference_mode()
    def _logprobs(
        self, tokens: list[int], first: int, last: int, snapshot: Snapshot | None = None
    ) -> Tensor:
        """Return log probabilities (last - first + 1, V) at positions ``first..last`` of a call."""
        cache, model = self._cache, self._engine.model
        whole = [*self._before, *tokens[:last]]
        reusable = len(self._before) + first - 1  # the token before ``first`` gives its logits
        shared = min(common_prefix(cache.row_tokens(), whole), reusable)
        if snapshot is not None and shared >= snapshot.start:
            restored = min(common_prefix(snapshot.tokens, tokens), reusable - snapshot.start)
            if snapshot.start + restored > shared:
                cache.restore(snapshot, restored)
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
        left_at: int = 0,
        n_written: int = 0,
        size_cost: float = 0.0,
    ) -> None:
        self._pushed += 1
        step = _Step(
            cost + size_cost, self._pushed, kind, edit, tokens, cost, text, left_at, n_written
        )
        heapq.heappush(self._heap, step)

    def _encode(self, text: str) -> list[int]:
        return self._engine.tokenizer.encode(text)


def _size_cost(removed: int, added: int) -> float:
    """Return the cost of removing and adding this many words and punctuation marks."""
    return SIZE_COST * max(0, max(removed, added) - 1)


def _unescaped(text: str) -> str:
    """Undo the escaping of a JSON string."""
    plain: str = json.loads(f'"{text}"')
    return plain


def _likeliest(row: Tensor, count: int) -> list[tuple[float, int]]:
    values, tokens = torch.topk(row, count)
    pairs = zip(values.tolist(), tokens.tolist(), strict=True)
    return [(value, token) for value, token in pairs if value > MIN_LOGPROB]


def _closing_quote(text: str) -> int | None:
    """Return the index of the first quote that is not escaped."""
    at = 0
    while at < len(text):
        if text[at] == '"':
            return at
        at += 2 if text[at] == "\\" else 1
    return None


def _has_rejoined(text: str, old: str, left_at: int) -> bool:
    """Whether ``text`` has continued with old text for so long that its change is complete."""
    return len(text) - left_at > REJOINED and text[-REJOINED:] in old[left_at:]


def _is_escaped(text: str) -> bool:
    """Whether ``text`` is valid between the quotes of a JSON string."""
    try:
        _unescaped(text)
    except ValueError:
        return False
    return "\ufffd" not in text
