"""CUDA graphs for decode steps, which save launching the kernels one by one.

A step of one token per row does the same work every time, except for the number of keys it attends
to. It is captured as a CUDA graph once per bucket of key counts, then replayed with tokens and
positions read from fixed memory. It also finds the likeliest next tokens and leaves them there, so
that a greedy step is one launch and one copy to the host. With ``compiled``, torch.compile first
fuses the small kernels: that halves their number, and takes about a minute once per process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from agentcli.inference.sampling import likeliest
from agentcli.model.gpt import GPT
from agentcli.model.kv_cache import KVCache, Span

# The number of keys is rounded up to a power of two, and to at least this: a few graphs serve all
# steps, and reading masked keys costs little compared with reading the weights.
BUCKET = 256


def decode_step(
    model: GPT, cache: KVCache, tokens: Tensor, positions: Tensor, keys: int
) -> tuple[Tensor, Tensor]:
    """Return the logits (B, V) after ``tokens`` (B, 1) at ``positions`` (B, 1), and ``likeliest``.

    Replaces ``tokens`` by the likeliest next ones and advances ``positions`` by one. All that
    changes between steps is in tensors, so that the step can be captured; the caller updates the
    cache's lengths.
    """
    span = Span(0, 1, keys, positions)
    hidden = model.trunk(tokens, span, cache)  # (B, 1, C)
    cache.tokens.scatter_(1, positions, tokens)
    logits = model.logits(hidden)[:, 0]
    positions.add_(1)
    best = likeliest(logits)
    tokens.copy_(best[:, None].clamp(min=0))
    return logits, best


class DecodeGraphs:
    """Captured steps for one cache; when its memory or number of rows changes, captured anew."""

    def __init__(self, model: GPT, *, compiled: bool = False) -> None:
        self._model = model
        self._step: Callable[..., tuple[Tensor, Tensor]] = decode_step
        if compiled:
            # Each batch size, capacity and bucket is compiled separately; the default limit is 8.
            # The attribute makes torch import the module, which takes seconds, only here.
            dynamo = torch._dynamo.config
            dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
            # With tuning, one-row matrix products become plain reductions, which use the whole
            # memory bandwidth.
            options: dict[str, Any] = {"coordinate_descent_tuning": True}
            self._step = torch.compile(decode_step, fullgraph=True, dynamic=False, options=options)
        self._cache: KVCache | None = None
        self._memory: tuple[int, ...] = ()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool: Any = None
        self._tokens = torch.empty(0)
        self._positions = torch.empty(0)
        self._expected: list[int] = []  # the cache's lengths if only this class changes it
        self._best = torch.empty(0)
        self._on_device: list[int] = []  # the tokens that the next step would read, where known

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Append ``tokens`` (B, 1), on the host, to the cache; return the logits (B, V)."""
        cache.plan(tokens)  # checks the context length and grows the memory
        self._follow(cache)
        if self._on_device != tokens[:, 0].tolist():
            self._tokens.copy_(tokens, non_blocking=True)
        if self._expected != cache.lengths:
            held = torch.tensor(cache.lengths, dtype=torch.long)[:, None]
            self._positions.copy_(held)
        keys = min(max(BUCKET, 1 << cache.length.bit_length()), cache.capacity)
        if keys not in self._graphs:
            self._capture(cache, keys)
        graph, logits, self._best = self._graphs[keys]
        graph.replay()
        self._on_device = []
        cache.lengths = [length + 1 for length in cache.lengths]
        self._expected = list(cache.lengths)
        return logits

    def likeliest(self) -> list[int]:
        """Return the likeliest token of each row after the last step, -1 where none is possible."""
        self._on_device = self._best.tolist()
        return self._on_device

    def _follow(self, cache: KVCache) -> None:
        """Drop the graphs if they were captured on memory that the cache no longer uses."""
        memory = (cache.batch, cache.capacity, cache.tokens.data_ptr(), cache.k[0].data_ptr())
        if cache is self._cache and memory == self._memory:
            return
        self._cache, self._memory, self._graphs, self._pool = cache, memory, {}, None
        device = cache.tokens.device
        self._tokens = torch.zeros(cache.batch, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(cache.batch, 1, dtype=torch.long, device=device)
        self._expected, self._on_device = [], []

    def _capture(self, cache: KVCache, keys: int) -> None:
        at, read = self._positions.clone(), self._tokens.clone()
        arguments = (self._model, cache, self._tokens, self._positions, keys)
        # Warm up on a side stream, so that compilation and workspace allocation are not captured.
        # Repeating the step is harmless: it writes the same keys and values to the same slots.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(*arguments)
                self._positions.copy_(at)
                self._tokens.copy_(read)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The graphs share one memory pool: only one runs at a time, and its output is consumed
        # before the next one starts.
        with torch.cuda.graph(graph, pool=self._pool):
            logits, best = self._step(*arguments)
        self._positions.copy_(at)
        self._tokens.copy_(read)
        self._pool = graph.pool()
        self._graphs[keys] = graph, logits, best
