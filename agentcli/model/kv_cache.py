"""KVCache: the keys, values and tokens of the rows of a batch.

The layout is nanochat's newest: k and v are (layers, batch, seq, kv_heads, head_dim). Each layer is
a separate tensor, so that growing needs memory for only one more layer. Rows may have different
lengths; all start at slot 0, so that slot j always holds position j. The cache also stores the
token ids: nanochat's smear, which depends on the previous token, is computed from them, so that
truncation has no other state to restore.
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
    """The positions of one forward pass: ``start .. start + length`` in every row.

    Attributes:
        start: The first position, of the shortest row if rows differ.
        length: The number of new tokens per row, T.
        keys: The number of slots to attend to, if rows differ.
        positions: The positions of each row, (B, T), if rows differ.
        counts: The number of tokens of each row that are not padding, if rows differ; padding is on
            the right.
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
        """Return the mask (B or 1, 1, T, n_key) bool of the keys each query sees.

        It is cached, and so computed once for all layers.
        """
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
class Snapshot:
    """A copy of the tokens from ``start`` on, with keys and values (1, n, Hkv, D) per layer."""

    start: int
    tokens: list[int]
    k: list[Tensor]
    v: list[Tensor]


class KVCache:
    """The keys and values of ``batch`` rows, growing on demand up to ``limit`` positions.

    Raises:
        ContextLengthError: an operation exceeds ``limit``.
        ModelError: the arguments of an operation do not fit the cache, or memory runs out.
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
        with _allocating(self._bytes(batch, slots, dtype)):
            self.k = [torch.zeros(shape, dtype=dtype, device=device) for _ in config.windows]
            self.v = [torch.zeros(shape, dtype=dtype, device=device) for _ in config.windows]
            self.tokens = torch.zeros(batch, slots, dtype=torch.long, device=device)

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    @property
    def capacity(self) -> int:
        """The number of positions that fit without growing."""
        return self.tokens.shape[1]

    @property
    def length(self) -> int:
        """The number of positions in the longest row."""
        return max(self.lengths)

    @property
    def uniform(self) -> bool:
        """Whether all rows have the same length."""
        return min(self.lengths) == max(self.lengths)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.k, *self.v, self.tokens))

    def _bytes(self, batch: int, slots: int, dtype: torch.dtype) -> int:
        return batch * self.config.cache_bytes(slots, dtype.itemsize)

    def row_tokens(self, row: int = 0) -> list[int]:
        """Return the token ids of a row."""
        ids: list[int] = self.tokens[row, : self.lengths[row]].tolist()
        return ids

    # --- one forward: plan, write in every layer, commit ---------------------------------------

    def plan(self, tokens: Tensor, counts: Sequence[int] | None = None) -> Span:
        """Reserve memory for ``tokens`` (B, T) and return their span; ``commit`` adds them."""
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
        """Store k and v (B, T, Hkv, D); return all keys and values so far, (B, S, Hkv, D)."""
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
        """Return the token before each row's first new one, (B, 1), and whether it exists.

        The latter is (B, 1) bool, or None if it exists in all rows.
        """
        if span.positions is None:
            at = max(span.start - 1, 0)
            has = None if span.start else torch.zeros_like(self.tokens[:, :1], dtype=torch.bool)
            return self.tokens[:, at : at + 1], has
        first = span.positions[:, :1]
        return self.tokens.gather(1, (first - 1).clamp(min=0)), first > 0

    def commit(self, tokens: Tensor, span: Span) -> None:
        """Record the tokens of ``span``, whose keys and values have been written in all layers."""
        if span.positions is None:
            self.tokens[:, span.start : span.end] = tokens
        else:
            self.tokens.scatter_(1, span.positions, tokens)
        counts = span.counts or [span.length] * self.batch
        self.lengths = [held + count for held, count in zip(self.lengths, counts, strict=True)]

    # --- between forwards ----------------------------------------------------------------------

    def reserve(self, positions: int) -> None:
        """Grow the capacity to at least ``positions``, keeping the content."""
        if positions <= self.capacity:
            return
        # At least double, so that growing token by token copies each key only a few times.
        wanted = max(_round_up(positions), min(2 * self.capacity, _round_up(self.limit)))
        held = self.length
        with _allocating(self._bytes(self.batch, wanted, self.k[0].dtype)):
            for tensors in (self.k, self.v):
                for layer, old in enumerate(tensors):
                    if old.shape[1] < wanted:  # else it was grown before memory ran out last time
                        tensors[layer] = _grown(old, wanted, held)
            self.tokens = _grown(self.tokens, wanted, held)

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Drop everything after ``lengths`` (one for all rows, or one per row)."""
        wanted = [lengths] * self.batch if isinstance(lengths, int) else list(lengths)
        if len(wanted) != self.batch:
            raise ModelError(f"{len(wanted)} lengths for a cache of {self.batch} rows")
        for row, (new, held) in enumerate(zip(wanted, self.lengths, strict=True)):
            if not 0 <= new <= held:
                raise ModelError(f"cannot truncate row {row} from {held} to {new} tokens")
        self.lengths = wanted

    def snapshot(self, start: int) -> Snapshot:
        """Copy the content of a one-row cache from ``start`` on, for ``restore``."""
        held = slice(start, self.length)
        keys, values = ([t[:, held].clone() for t in tensors] for tensors in (self.k, self.v))
        return Snapshot(start, self.tokens[0, held].tolist(), keys, values)

    def restore(self, snapshot: Snapshot, count: int) -> None:
        """Restore the first ``count`` tokens of a snapshot and drop everything after them.

        The content before ``snapshot.start`` must be the same as when the snapshot was taken.
        """
        if count > len(snapshot.tokens):
            raise ModelError(f"cannot restore {count} of {len(snapshot.tokens)} tokens")
        self.truncate(snapshot.start)
        self.reserve(snapshot.start + count)
        place = slice(snapshot.start, snapshot.start + count)
        for tensors, kept in ((self.k, snapshot.k), (self.v, snapshot.v)):
            for mine, old in zip(tensors, kept, strict=True):
                mine[:, place] = old[:, :count]
        self.tokens[0, place] = torch.tensor(snapshot.tokens[:count], device=self.tokens.device)
        self.lengths = [place.stop]

    def reset(self) -> None:
        """Drop the content, but keep the memory."""
        self.lengths = [0] * self.batch

    def fork(self, rows: int | None = None, *, capacity: int = 0) -> KVCache:
        """Return an independent copy, in which a single row is repeated ``rows`` times."""
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
        """Copy the content of ``other`` into this empty cache, repeating a single row for all."""
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
        """Keep only these rows, in this order, so that finished rows cost no more compute."""
        with _allocating(self.nbytes):
            index = torch.tensor(list(rows), dtype=torch.long, device=self.tokens.device)
            for tensors in (self.k, self.v):
                for layer, old in enumerate(tensors):
                    tensors[layer] = old.index_select(0, index)
            self.tokens = self.tokens.index_select(0, index)
        self.lengths = [self.lengths[row] for row in rows]


@contextmanager
def _allocating(size: int) -> Iterator[None]:
    """Allocate the memory of a cache within this context.

    Tensors are ordinary ones even under inference_mode, so that later calls may write to them.

    Raises:
        ModelError: memory ran out; the message has the ``size`` in GB.
    """
    try:
        with torch.inference_mode(False):
            yield
    except (RuntimeError, MemoryError) as error:
        raise ModelError(
            f"no room for {size / 1e9:.1f} GB of keys and values ({str(error).splitlines()[0]})",
            hint="use a shorter context or fewer samples",
        ) from None


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two sequences of tokens."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:  # the usual case, compared without a loop
        return size
    return next(at for at in range(size) if a[at] != b[at])


def _grown(old: Tensor, slots: int, held: int) -> Tensor:
    new = old.new_zeros((old.shape[0], slots, *old.shape[2:]))
    new[:, :held] = old[:, :held]
    return new


def _round_up(positions: int) -> int:
    return -(-positions // GRAIN) * GRAIN
