"""Endless batches from code and from task shards, in an order that can be resumed.

Every stream yields batches (tokens, targets, weights), each (rows, length): ``weights`` says how
much the prediction of ``targets`` counts, 0 for padding. ``state`` is small JSON; a stream built
from the same data and given that state continues with the very next batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.shards import Mask, Tokens, list_shards, read_shard

State = dict[str, Any]
Row = tuple[Tokens, npt.NDArray[np.float32]]
# Documents that wait for a row they fit into. More of them fill rows better.
WAITING = 256
PAD = 0  # fills a row after its last document; its weight is 0
# Shards that are shuffled together. New shards are noticed after each such round.
SHARDS_A_ROUND = 8


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # int32 (rows, length)
    targets: Tensor  # int64 (rows, length)
    weights: Tensor  # float32 (rows, length)


class Stream(Protocol):
    state: State

    def next_batch(self, rows: int) -> Batch: ...


class CodeStream:
    """One long row of tokens, cut at a different offset and reshuffled in each epoch."""

    def __init__(self, tokens: Tokens, length: int, seed: int) -> None:
        if len(tokens) <= 2 * length:
            raise ValueError(f"{len(tokens)} tokens of code are too few for rows of {length}")
        self.tokens, self.length, self.seed = tokens, length, seed
        self.state: State = {"epoch": 0, "row": 0, "tokens": len(tokens)}
        self._order: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._ordered = -1

    def next_batch(self, rows: int) -> Batch:
        chosen = np.stack([self._next_row() for _ in range(rows)]).astype(np.int32)
        found = torch.from_numpy(chosen)  # (rows, length + 1)
        tokens, targets = found[:, :-1].contiguous(), found[:, 1:].long()
        return Batch(tokens, targets, torch.ones(targets.shape))

    def _next_row(self) -> Tokens:
        if self.state["tokens"] != len(self.tokens):  # resumed with other code: from its start
            self.state = {"epoch": 0, "row": 0, "tokens": len(self.tokens)}
        epoch = int(self.state["epoch"])
        rng = np.random.default_rng((self.seed, epoch))
        offset = int(rng.integers(self.length))
        if self._ordered != epoch:
            count = (len(self.tokens) - 1 - offset) // self.length
            self._order, self._ordered = rng.permutation(count), epoch
        start = offset + int(self._order[self.state["row"]]) * self.length
        last = self.state["row"] + 1 == len(self._order)
        row = 0 if last else self.state["row"] + 1
        self.state = {"epoch": epoch + last, "row": row, "tokens": len(self.tokens)}
        return self.tokens[start : start + self.length + 1]


class TaskStream:
    """Whole documents from the shards of a folder, best-fit packed into rows.

    New shards are taken before old ones are repeated. ``context`` is the weight of the tokens that
    the shard does not train on (what users and tools said).
    """

    def __init__(self, folder: Path, length: int, seed: int, context: float) -> None:
        self.folder, self.length, self.seed = folder, length, seed
        self.context = context
        self.state: State = {"round": -1, "row": 0, "shards": [], "seen": []}
        self._rows: Iterator[Row] | None = None

    def next_batch(self, rows: int) -> Batch:
        found = [self._next_row() for _ in range(rows)]
        tokens = torch.from_numpy(np.stack([row for row, _ in found]).astype(np.int32))
        weights = torch.from_numpy(np.stack([weight for _, weight in found]))
        targets = tokens.roll(-1, 1).long()  # the last one of a row has the weight 0
        return Batch(tokens, targets, weights)

    def _next_row(self) -> Row:
        for _ in range(3):
            if self._rows is None:
                if self.state["round"] < 0:
                    self._start_round()
                self._rows = self._packed()
                for _ in range(self.state["row"]):
                    next(self._rows)
            if (row := next(self._rows, None)) is not None:
                self.state = {**self.state, "row": self.state["row"] + 1}
                return row
            self._start_round()
        raise ValueError(f"no document in {self.folder} fits into {self.length} tokens")

    def _start_round(self) -> None:
        names = [path.relative_to(self.folder).as_posix() for path in list_shards(self.folder)]
        if not names:
            raise FileNotFoundError(f"no shards in {self.folder}")
        seen = set(self.state["seen"])
        number = self.state["round"] + 1
        rng = np.random.default_rng((self.seed, number))
        # Repeats fill up the round, so that it is varied even with few new shards.
        new = [name for name in names if name not in seen]
        old = [str(name) for name in rng.permutation([name for name in names if name in seen])]
        shards = (new + old)[:SHARDS_A_ROUND]
        self.state = {
            "round": number,
            "row": 0,
            "shards": shards,
            "seen": sorted(seen | set(shards)),
        }
        self._rows = None

    def _packed(self) -> Iterator[Row]:
        shards = [read_shard(self.folder / name) for name in self.state["shards"]]
        documents = [doc for shard in shards for doc in shard.documents()]
        rng = np.random.default_rng((self.seed, self.state["round"], 1))
        order = rng.permutation(len(documents))
        fitting = (documents[i] for i in order if 1 < len(documents[i][0]) <= self.length)
        return (self._row(chosen) for chosen in best_fit(fitting, self.length))

    def _row(self, documents: list[tuple[Tokens, Mask]]) -> Row:
        tokens = np.full(self.length, PAD, np.uint16)
        weights = np.zeros(self.length, np.float32)
        place = 0
        for ids, mask in documents:
            end = place + len(ids)
            tokens[place:end] = ids
            # Position i predicts token i + 1; the last token of a document predicts nothing.
            weights[place : end - 1] = np.where(mask[1:] > 0, mask[1:], self.context)
            place = end
        return tokens, weights


def best_fit(
    documents: Iterator[tuple[Tokens, Mask]], length: int
) -> Iterator[list[tuple[Tokens, Mask]]]:
    """Yield rows of documents, each filled repeatedly with the longest document that fits."""
    waiting: list[tuple[Tokens, Mask]] = []
    while True:
        while len(waiting) < WAITING and (document := next(documents, None)) is not None:
            waiting.append(document)
        if not waiting:
            return
        row, left = [waiting.pop(0)], length
        left -= len(row[0][0])
        while True:
            sizes = [len(ids) if len(ids) <= left else 0 for ids, _ in waiting]
            if not any(sizes):
                break
            row.append(waiting.pop(int(np.argmax(sizes))))
            left -= len(row[-1][0])
        yield row


@dataclass
class Mixture:
    """Takes each next batch from the stream that is furthest behind its share."""

    streams: Mapping[str, Stream]
    rows: Mapping[str, int]  # rows of a batch, so that all batches have about as many tokens
    served: dict[str, float] = field(default_factory=dict)

    def next_batch(self, shares: Mapping[str, float]) -> tuple[str, Batch]:
        total = sum(shares.values())
        for name, share in shares.items():
            self.served[name] = self.served.get(name, 0.0) + share / total
        name = max(shares, key=lambda name: self.served[name])
        self.served[name] -= 1.0
        return name, self.streams[name].next_batch(self.rows[name])

    def set_context(self, context: float) -> None:
        for stream in self.streams.values():
            if isinstance(stream, TaskStream):
                stream.context = context

    def state(self) -> State:
        streams = {name: stream.state for name, stream in self.streams.items()}
        return {"served": dict(self.served), "streams": streams}

    def load(self, state: State) -> None:
        self.served = dict(state["served"])
        for name, found in state["streams"].items():
            if name in self.streams:
                self.streams[name].state = found


@dataclass(frozen=True)
class Step:
    """The batches of one optimiser step, and the state of the streams after it."""

    batches: list[tuple[str, Batch]]
    state: State


class Loader:
    """Prepares steps in a thread, so that the device never waits for Python."""

    def __init__(self, mixture: Mixture, batches: int, device: torch.device) -> None:
        self.mixture, self.batches, self.device = mixture, batches, device
        self._wanted: Queue[tuple[Mapping[str, float], float] | None] = Queue()
        self._ready: Queue[Step | BaseException] = Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ask(self, shares: Mapping[str, float], context: float) -> None:
        """Start to prepare one more step; ``get`` returns steps in this order."""
        self._wanted.put((dict(shares), context))

    def get(self) -> Step:
        step = self._ready.get()
        if isinstance(step, BaseException):
            raise step
        return step

    def close(self) -> None:
        self._wanted.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            try:
                self.mixture.set_context(wanted[1])
                batches = [self.mixture.next_batch(wanted[0]) for _ in range(self.batches)]
                moved = [(name, self._move(batch)) for name, batch in batches]
                self._ready.put(Step(moved, self.mixture.state()))
            except BaseException as error:
                self._ready.put(error)
                return

    def _move(self, batch: Batch) -> Batch:
        if self.device.type != "cuda":
            return batch
        parts = (batch.tokens, batch.targets, batch.weights)
        return Batch(*(part.pin_memory().to(self.device, non_blocking=True) for part in parts))
