"""One decode step on CUDA without the cost of launching its kernels one by one.

A step of one token per row always does the same work, but for the number of keys it looks at.
So it is captured as a CUDA graph once for each bucket of keys, and replayed: positions and
tokens are read from fixed memory. With ``compiled`` torch.compile fuses the small kernels first,
which takes about a minute once per process and halves their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agentcli.model.gpt import GPT
from agentcli.model.kv_cache import KVCache, Span

# Keys looked at are rounded up to a power of two, at least this: few graphs serve all steps, and
# keys that are only masked cost little beside the weights.
BUCKET = 256


def decode_step(model: GPT, cache: KVCache, tokens: Tensor, positions: Tensor, keys: int) -> Tensor:
    """Logits (B, V) after ``tokens`` (B, 1) at ``positions`` (B, 1), which are moved on by one.

    Everything that changes from step to step is in tensors; the cache's lengths are the caller's.
    """
    span = Span(0, 1, keys, positions)
    hidden = model.trunk(tokens, span, cache)  # (B, 1, C)
    cache.tokens.scatter_(1, positions, tokens)
    logits = model.logits(hidden)[:, 0]
    positions.add_(1)
    return logits


class DecodeGraphs:
    """Captured steps for one cache. Memory that grew or rows that left need a new capture."""

    def __init__(self, model: GPT, *, compiled: bool = False) -> None:
        self._model = model
        self._step: Callable[..., Tensor] = decode_step
        if compiled:
            # One compilation for each batch, capacity and bucket; the default allows eight.
            # An attribute, not an import: torch loads the module here, and it takes seconds.
            dynamo = torch._dynamo.config
            dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
            # With tuning, products of one row become plain reductions, which read at full speed.
            options: dict[str, Any] = {"coordinate_descent_tuning": True}
            self._step = torch.compile(decode_step, fullgraph=True, dynamic=False, options=options)
        self._cache: KVCache | None = None
        self._memory: tuple[int, ...] = ()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None
        self._tokens = torch.empty(0)
        self._positions = torch.empty(0)
        self._expected: list[int] = []

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(B, 1) next tokens, on the host or the device -> (B, V); the cache holds them then."""
        cache.plan(tokens)  # the context is checked here, and memory grows
        self._follow(cache)
        self._tokens.copy_(tokens, non_blocking=True)
        if self._expected != cache.lengths:
            held = torch.tensor(cache.lengths, dtype=torch.long)[:, None]
            self._positions.copy_(held)
        keys = min(max(BUCKET, 1 << cache.length.bit_length()), cache.capacity)
        if keys not in self._graphs:
            self._capture(cache, keys)
        graph, logits = self._graphs[keys]
        graph.replay()
        cache.lengths = [length + 1 for length in cache.lengths]
        self._expected = list(cache.lengths)
        return logits

    def _follow(self, cache: KVCache) -> None:
        """Drops the graphs if they point to memory that is no longer the cache's."""
        memory = (cache.batch, cache.capacity, cache.tokens.data_ptr(), cache.k[0].data_ptr())
        if cache is self._cache and memory == self._memory:
            return
        self._cache, self._memory, self._graphs, self._pool = cache, memory, {}, None
        device = cache.tokens.device
        self._tokens = torch.zeros(cache.batch, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(cache.batch, 1, dtype=torch.long, device=device)
        self._expected = []

    def _capture(self, cache: KVCache, keys: int) -> None:
        at = self._positions.clone()
        arguments = (self._model, cache, self._tokens, self._positions, keys)
        # Warm up aside: compilation and workspaces must not fall into the capture. The steps
        # write the same key and value to the same slot each time.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(*arguments)
                self._positions.copy_(at)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # One pool for all: one graph runs at a time, and its output is used up before the next.
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._step(*arguments)
        self._positions.copy_(at)
        self._pool = graph.pool()
        self._graphs[keys] = graph, logits
