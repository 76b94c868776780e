"""KVCache: the keys, values and tokens of conversations in progress.

Layout, nanochat's newest: k and v are (layers, batch, seq, kv_heads, head_dim), held as one tensor
per layer, so that growing needs room for one more layer only. Rows may have different lengths;
each starts at slot 0, so slot j of a row always holds position j. The cache keeps the token ids
too: whatever depends on an earlier token (nanochat's smear) is computed from them, so truncation
has no other state to restore.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentcli.errors import ContextLengthError, ModelError
from agentcli.model.config import ModelConfig

# Capacity is a multiple of this many positions.
GRAIN = 1024


@dataclass(frozen=True)
class Span:
    """The positions that one forward covers: ``start .. start + length`` of every row.

    ``positions`` (B, T) says them row by row where rows differ; then ``keys`` slots of the
    cache are looked at (start is the shortest row's), and ``counts`` says how many of the T
    tokens of each row are real, the rest being padding on the right.
    """

    start: int
    length: int
    keys: int = 0
    positions: Tensor | None = None
    counts: tuple[int, ...] | None = None
    _masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict, compare=False)

    @property
    def end(self) -> int:
        """One past the last position."""
        return self.keys or self.start + self.length

    def visible(self, n_key: int, window: int | None, device: torch.device | None = None) -> Tensor:
        """(B or 1, 1, T, n_key) bool: which keys each query sees. Made once for all layers."""
        if (n_key, window) not in self._masks:
            positions = self.positions
            if positions is None:
                positions = torch.arange(self.start, self.end, device=device)[None]
            back = positions[:, :, None] - torch.arange(n_key, device=positions.device)
            mask = back >= 0
            if window is not None:
                mask &= back <= window
            self._masks[n_key, window] = mask[:, None]
        return self._masks[n_key, window]


@dataclass(frozen=True)
class Piece:
    """Tokens with their keys and values, one tensor (1, n, Hkv, D) a layer, from a position on."""

    start: int
    tokens: list[int]
    k: list[Tensor]
    v: list[Tensor]


class KVCache:
    """Keys and values of ``batch`` rows, growing on demand up to ``limit`` positions.

    Raises ModelError for operations that do not fit, ContextLengthError past ``limit``.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        capacity: int = 0,
        limit: int | None = None,
    ) -> None:
        self.config = config
        self.limit = limit or config.sequence_len
        self.lengths = [0] * batch
        slots = min(_round_up(max(capacity, 1)), self.limit)
        shape = (batch, slots, config.n_kv_head, config.head_dim)
        with _allocating(self.cache_bytes(batch, slots, dtype)):
            self.k = [torch.zeros(shape, dtype=dtype, device=device) for _ in config.windows]
            self.v = [torch.zeros(shape, dtype=dtype, device=device) for _ in config.windows]
            self.tokens = torch.zeros(batch, slots, dtype=torch.long, device=device)

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    @property
    def capacity(self) -> int:
        """Positions that fit before the next growth."""
        return self.tokens.shape[1]

    @property
    def length(self) -> int:
        """Positions held by the longest row."""
        return max(self.lengths)

    @property
    def uniform(self) -> bool:
        return min(self.lengths) == max(self.lengths)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.k, *self.v, self.tokens))

    def cache_bytes(self, batch: int, slots: int, dtype: torch.dtype) -> int:
        return batch * self.config.cache_bytes(slots, dtype.itemsize)

    def row_tokens(self, row: int = 0) -> list[int]:
        """The token ids whose keys and values are held for ``row``."""
        ids: list[int] = self.tokens[row, : self.lengths[row]].tolist()
        return ids

    # --- one forward: plan, write in every layer, commit ---------------------------------------

    def plan(self, tokens: Tensor, counts: Sequence[int] | None = None) -> Span:
        """Makes room for ``tokens`` (B, T) and says where they go. Holds nothing of them yet."""
        batch, n_new = tokens.shape
        if batch != self.batch:
            raise ModelError(f"{batch} rows of tokens for a cache of {self.batch} rows")
        if counts is not None and any(not 0 < count <= n_new for count in counts):
            raise ModelError(f"token counts {list(counts)} do not fit {n_new} columns")
        real = counts or [n_new] * batch
        needed = max(held + count for held, count in zip(self.lengths, real, strict=True))
        if needed > self.limit:
            raise ContextLengthError(
                f"{needed} tokens do not fit the context of {self.limit}",
                hint="shorten the prompt or raise the context length",
            )
        self.reserve(self.length + n_new)
        if self.uniform and (counts is None or len(set(counts)) == 1 == counts.count(n_new)):
            return Span(self.lengths[0], n_new)
        start = torch.tensor(self.lengths, device=self.tokens.device)[:, None]
        positions = start + torch.arange(n_new, device=self.tokens.device)
        keys = self.length + n_new
        return Span(min(self.lengths), n_new, keys, positions, tuple(real))

    def write(self, layer: int, k: Tensor, v: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, T, Hkv, D); returns all keys and values so far, (B, S, Hkv, D)."""
        all_k, all_v = self.k[layer], self.v[layer]
        if span.positions is None:
            all_k.narrow(1, span.start, span.length).copy_(k)
            all_v.narrow(1, span.start, span.length).copy_(v)
        else:
            rows = torch.arange(self.batch, device=k.device)[:, None]
            all_k[rows, span.positions] = k.to(all_k.dtype)
            all_v[rows, span.positions] = v.to(all_v.dtype)
        return all_k.narrow(1, 0, span.end), all_v.narrow(1, 0, span.end)

    def previous(self, span: Span) -> tuple[Tensor, Tensor | None]:
        """The token before each row's first new one, (B, 1), and whether there is one.

        The second is None where all rows have one, else (B, 1) bool.
        """
        if span.positions is None:
            at = max(span.start - 1, 0)
            has = None if span.start else torch.zeros_like(self.tokens[:, :1], dtype=torch.bool)
            return self.tokens[:, at : at + 1], has
        first = span.positions[:, :1]
        return self.tokens.gather(1, (first - 1).clamp(min=0)), first > 0

    def commit(self, tokens: Tensor, span: Span) -> None:
        """Counts the tokens of ``span`` as held. Only now do they exist."""
        if span.positions is None:
            self.tokens[:, span.start : span.end] = tokens
        else:
            self.tokens.scatter_(1, span.positions, tokens)
        counts = span.counts or [span.length] * self.batch
        self.lengths = [held + count for held, count in zip(self.lengths, counts, strict=True)]

    # --- between forwards ----------------------------------------------------------------------

    def reserve(self, positions: int) -> None:
        """Grows to hold ``positions``; what is held stays."""
        if positions <= self.capacity:
            return
        # At least double, so that growing token by token copies each key a few times only.
        wanted = max(_round_up(positions), min(2 * self.capacity, _round_up(self.limit)))
        held = self.length
        with _allocating(self.cache_bytes(self.batch, wanted, self.k[0].dtype)):
            for tensors in (self.k, self.v):
                for layer, old in enumerate(tensors):
                    if old.shape[1] < wanted:  # done already, if memory ran out the last time
                        tensors[layer] = _grown(old, wanted, held)
            self.tokens = _grown(self.tokens, wanted, held)

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Forgets everything past ``lengths`` (one for all rows, or one a row)."""
        wanted = [lengths] * self.batch if isinstance(lengths, int) else list(lengths)
        if len(wanted) != self.batch:
            raise ModelError(f"{len(wanted)} lengths for a cache of {self.batch} rows")
        for row, (new, held) in enumerate(zip(wanted, self.lengths, strict=True)):
            if not 0 <= new <= held:
                raise ModelError(f"cannot truncate row {row} from {held} to {new} tokens")
        self.lengths = wanted

    def piece(self, start: int) -> Piece:
        """A copy of what a cache of one row holds from ``start`` on, for ``put_back``."""
        held = slice(start, self.length)
        keys, values = ([t[:, held].clone() for t in tensors] for tensors in (self.k, self.v))
        return Piece(start, self.tokens[0, held].tolist(), keys, values)

    def put_back(self, piece: Piece, count: int) -> None:
        """Holds the first ``count`` tokens of a piece again, and nothing after them.

        What stands before ``piece.start`` must be what stood there when it was taken.
        """
        if count > len(piece.tokens):
            raise ModelError(f"{count} tokens of a piece of {len(piece.tokens)}")
        self.truncate(piece.start)
        self.reserve(piece.start + count)
        place = slice(piece.start, piece.start + count)
        for tensors, kept in ((self.k, piece.k), (self.v, piece.v)):
            for mine, old in zip(tensors, kept, strict=True):
                mine[:, place] = old[:, :count]
        self.tokens[0, place] = torch.tensor(piece.tokens[:count], device=self.tokens.device)
        self.lengths = [place.stop]

    def reset(self) -> None:
        """Forgets everything; keeps the memory."""
        self.lengths = [0] * self.batch

    def fork(self, rows: int | None = None, *, capacity: int = 0) -> KVCache:
        """A copy that lives on by itself, with ``rows`` rows (from one) or as many as here."""
        batch = rows or self.batch
        copy = KVCache(
            self.config,
            batch,
            dtype=self.k[0].dtype,
            device=self.tokens.device,
            capacity=max(capacity, self.length),
            limit=self.limit,
        )
        copy.prefill(self)
        return copy

    def prefill(self, other: KVCache) -> None:
        """Takes over what ``other`` holds; its single row is repeated for all rows here."""
        if self.length:
            raise ModelError("cannot prefill a cache that already holds tokens")
        if other.batch not in (1, self.batch):
            raise ModelError(f"cannot spread {other.batch} rows over {self.batch}")
        mine, theirs = (
            (len(cache.k), *cache.k[0].shape[2:]) for cache in (self, other)
        )  # (layers, kv_heads, head_dim)
        if mine != theirs:
            raise ModelError(f"caches of different models: {mine} and {theirs}")
        held = other.length
        if held > self.limit:
            raise ContextLengthError(f"{held} tokens do not fit the context of {self.limit}")
        self.reserve(held)
        for to, source in zip((*self.k, *self.v), (*other.k, *other.v), strict=True):
            to[:, :held] = source[:, :held]
        self.tokens[:, :held] = other.tokens[:, :held]
        self.lengths = other.lengths * (self.batch // other.batch)

    def select(self, rows: Sequence[int]) -> None:
        """Keeps only these rows, in this order: finished rows stop costing compute."""
        with _allocating(self.nbytes):
            index = torch.tensor(list(rows), dtype=torch.long, device=self.tokens.device)
            for tensors in (self.k, self.v):
                for layer, old in enumerate(tensors):
                    tensors[layer] = old.index_select(0, index)
            self.tokens = self.tokens.index_select(0, index)
        self.lengths = [self.lengths[row] for row in rows]


@contextmanager
def _allocating(size: int) -> Iterator[None]:
    """For the memory of a cache. Raises ModelError, with the size, where there is no room.

    Ordinary tensors even within inference_mode, so that later calls may write to them.
    """
    try:
        with torch.inference_mode(False):
            yield
    except (RuntimeError, MemoryError) as error:
        raise ModelError(
            f"no room for {size / 1e9:.1f} GB of keys and values ({str(error).splitlines()[0]})",
            hint="use a shorter context or fewer samples",
        ) from None


def _grown(old: Tensor, slots: int, held: int) -> Tensor:
    new = old.new_zeros((old.shape[0], slots, *old.shape[2:]))
    new[:, :held] = old[:, :held]
    return new


def _round_up(positions: int) -> int:
    return -(-positions // GRAIN) * GRAIN
