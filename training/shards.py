"""Token shards: the files that carry documents from a generator to the trainer.

A shard is one ``.npz`` file with three arrays:

    tokens   uint16  (n,)           all documents, one after another
    mask     uint8   (n,)           weight of this token in the loss; 0 = context only
    offsets  int64   (documents+1,) document i is tokens[offsets[i]:offsets[i + 1]]

Each document starts with ``<|bos|>`` (mask 0), which also separates it from the previous document
in a row. It should fit into one row of the trainer (4096 tokens for tasks): longer ones are
dropped, not cut, since a cut could end in the middle of a call.

A shard appears under its final name only when it is complete, so that generators may write into a
folder that a trainer reads. A good size is about 2-8 million tokens: small enough to appear often,
large enough to shuffle. Names only decide the order (sorted), and each name is read once: give each
generator process its own prefix or folder, e.g. ``seed1/tasks-03-00017.npz``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Document = tuple[Sequence[int], Sequence[int]]  # token ids, weights: of equal length


@dataclass(frozen=True)
class Shard:
    """The arrays of one shard; see the module's docstring."""

    tokens: Tokens
    mask: Mask
    offsets: Offsets

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.mask):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.mask)} mask entries")
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens):
            raise ValueError("offsets must run from 0 to the number of tokens")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> tuple[Tokens, Mask]:
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.mask[start:end]

    def documents(self) -> Iterator[tuple[Tokens, Mask]]:
        return (self.document(i) for i in range(len(self)))


def make_shard(documents: Iterable[Document]) -> Shard:
    """Join documents given as (token ids, mask)."""
    tokens: list[Tokens] = []
    masks: list[Mask] = []
    for ids, mask in documents:
        if len(ids) != len(mask):
            raise ValueError(f"a document of {len(ids)} tokens has {len(mask)} mask entries")
        tokens.append(np.asarray(ids, dtype=np.uint16))
        masks.append(np.asarray(mask, dtype=np.uint8))
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in tokens], out=offsets[1:])
    if not tokens:
        return Shard(np.zeros(0, np.uint16), np.zeros(0, np.uint8), offsets)
    return Shard(np.concatenate(tokens), np.concatenate(masks), offsets)


def write_shard(
    path: Path, documents: Iterable[Document] | Shard, *, compress: bool = True
) -> Shard:
    """Write documents as one shard, atomically; return what was written."""
    shard = documents if isinstance(documents, Shard) else make_shard(documents)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name must not match "*.npz" until the file is complete.
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        save = np.savez_compressed if compress else np.savez
        save(file, tokens=shard.tokens, mask=shard.mask, offsets=shard.offsets)
    partial.replace(path)
    return shard


def read_shard(path: Path) -> Shard:
    with np.load(path, allow_pickle=False) as data:
        return Shard(
            data["tokens"].astype(np.uint16, copy=False),
            data["mask"].astype(np.uint8, copy=False),
            data["offsets"].astype(np.int64, copy=False),
        )


def list_shards(folder: Path) -> list[Path]:
    """The complete shards in a folder and its subfolders, sorted by name."""
    return sorted(folder.rglob("*.npz"))
