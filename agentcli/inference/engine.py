"""Engine: tokens in, tokens out. Prefill once, copy the cache to the rows, decode.

    engine = Engine(model, tokenizer)
    for column, sampled in engine.generate(tokens, num_samples=2, max_tokens=100):
        ...                         # one token per row; sampled is False where it was forced

A Generation is an iterator that can be asked how it went: its rows, what was reused, the times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from agentcli.errors import ContextLengthError, ModelError
from agentcli.inference.constrain import Constraint
from agentcli.inference.graphs import DecodeGraphs
from agentcli.inference.row import FinishReason, InlineTools, RowState, RowText
from agentcli.inference.sampling import Sampling, adjust, choose, top_logprobs
from agentcli.inference.speculate import Lookup, PromptLookup
from agentcli.inference.threads import StepThreads
from agentcli.model.gpt import GPT
from agentcli.model.kv_cache import KVCache
from agentcli.model.tokenizer import Tokenizer

# In a column, stands for a row that has ended.
ENDED = -1
# Tokens per forward of a prefill: bounds memory, and how long a cancellation waits.
PREFILL_CHUNK = {"cpu": 512, "cuda": 8192}

Column = tuple[list[int], list[bool]]


class Engine:
    """Generates with one model. Holds no conversation: caches are the caller's.

    ``stop_ids`` end a row; None: the tokenizer's end and beginning. ``graphs`` replays decode
    steps as CUDA graphs (None: on CUDA), ``compiled`` compiles them as well. ``threads`` chooses
    how many compute (None: as torch is set).
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        stop_ids: frozenset[int] | None = None,
        graphs: bool | None = None,
        compiled: bool = False,
        threads: StepThreads | None = None,
    ) -> None:
        self.model = model
        self.threads = threads
        self.tokenizer = tokenizer
        ends = {tokenizer.eos_id, tokenizer.bos_id} - {None}
        self.stop_ids: frozenset[int] = frozenset(ends) if stop_ids is None else stop_ids  # type: ignore[arg-type]
        on_cuda = model.device.type == "cuda"
        self.compiled = compiled
        self.graphs: DecodeGraphs | None = None
        if on_cuda and graphs is not False:
            self.graphs = DecodeGraphs(model, compiled=compiled)

    def generate(
        self,
        tokens: Sequence[int],
        *,
        num_samples: int = 1,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        constraint: Constraint | None = None,
        tools: InlineTools | None = None,
        stop: Sequence[str] = (),
        lookup: Lookup | None = None,
        cache: KVCache | None = None,
        cancelled: Callable[[], bool] = bool,
    ) -> Generation:
        """Continues ``tokens`` in ``num_samples`` rows.

        ``max_tokens`` counts forced tokens, too; without it rows run until the context is full.
        ``cache`` (one row) is a conversation's: what it shares with ``tokens`` is reused, the
        rest forgotten; with one sample it holds the answer afterwards. ``lookup`` drafts from
        the text so far (one row only). ``cancelled`` is asked before each forward.
        Raises ModelError for arguments out of range and an empty prompt, ContextLengthError for
        a prompt that does not fit.
        """
        return Generation(
            self,
            list(tokens),
            num_samples,
            max_tokens,
            sampling or Sampling(),
            constraint,
            tools,
            stop,
            lookup,
            cache,
            cancelled,
        )

    def generate_batch(
        self, tokens: Sequence[int], num_samples: int = 1, **options: Any
    ) -> tuple[list[list[int]], list[list[bool]]]:
        """All rows at once: (tokens with the prompt, mask), without the tokens that ended them.

        The mask is True for sampled tokens, False for the prompt and forced ones.
        """
        rows = [list(tokens) for _ in range(num_samples)]
        masks = [[False] * len(tokens) for _ in range(num_samples)]
        for column, sampled in self.generate(tokens, num_samples=num_samples, **options):
            for i, token in enumerate(column):
                if token != ENDED and token not in self.stop_ids:
                    rows[i].append(token)
                    masks[i].append(sampled[i])
        return rows, masks

    def capacity(self, positions: int, limit: int) -> int:
        """What a cache for ``positions`` should hold at first.

        Powers of two where steps are compiled: each capacity costs a compilation.
        """
        if self.compiled:
            positions = 1 << (positions - 1).bit_length()
        return min(positions, limit)

    def forward(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Logits (B, T, V) of tokens (B, T) on the host, which the cache holds afterwards."""
        if self.graphs is not None and tokens.shape[1] == 1:
            return self.graphs(tokens, cache)[:, None]
        started = time.perf_counter()
        logits: Tensor = self.model(tokens.to(self.model.device), cache)
        if self.threads is not None and tokens.shape[1] == 1:
            self.threads.stepped(time.perf_counter() - started)
        return logits


class Generation(Iterator[Column]):
    """One call of ``Engine.generate``, under way.

    ``reused`` and ``prefilled`` count prompt tokens; the times are in seconds; ``steps`` counts
    forwards of the decode phase. ``cache`` holds the conversation so far.
    """

    def __init__(
        self,
        engine: Engine,
        tokens: list[int],
        num_samples: int,
        max_tokens: int | None,
        sampling: Sampling,
        constraint: Constraint | None,
        tools: InlineTools | None,
        stop: Sequence[str],
        lookup: Lookup | None,
        cache: KVCache | None,
        cancelled: Callable[[], bool],
    ) -> None:
        _check_arguments(engine.model, tokens, num_samples, max_tokens, lookup, cache)
        self.engine = engine
        self.sampling = sampling
        self.rows = [RowState(list(tokens), len(tokens)) for _ in range(num_samples)]
        limit = min(engine.model.config.sequence_len, cache.limit if cache else 1 << 62)
        if len(tokens) > limit:
            raise ContextLengthError(
                f"the prompt of {len(tokens)} tokens does not fit the context of {limit}"
            )
        hint = engine.capacity(len(tokens) + (max_tokens or 0), limit)
        self.cache = engine.model.new_cache(capacity=hint) if cache is None else cache
        self.reused = 0
        self.prefilled = 0
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.steps = 0
        self.drafts = PromptLookup(lookup, tokens) if lookup else None
        self._prompt = tokens
        self._max_tokens = max_tokens
        self._constraints = _one_per_row(constraint, num_samples)
        self._tools = tools
        self._texts = [
            RowText(engine.tokenizer.stream(), stop) if stop else None for _ in self.rows
        ]
        self._cancelled = cancelled
        self._random = torch.Generator().manual_seed(sampling.seed)
        # Rows still going, by number; the row of the working cache is the place in this list.
        self._active = list(range(num_samples))
        self._working = self.cache
        self._pending: list[list[int]] = []  # columns that are said but not yet in the cache
        self._ready: list[Tensor] = []  # logits (A, V) of the columns to come
        self._ahead: list[int] = []  # drafted tokens that are in the cache but not yet said
        self._drafted = 0  # how many there were at first
        self._columns = self._run()

    def __next__(self) -> Column:
        return next(self._columns)

    def close(self) -> None:
        """Ends early; the cache then holds what was said."""
        self._columns.close()

    # --- the loop ------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> Generator[Column, None, None]:
        try:
            if not self._prefill():
                return
            made = 0
            while self._active and (self._max_tokens is None or made < self._max_tokens):
                started = time.perf_counter()
                if not self._make_ready():
                    return
                column, sampled = self._next_column()
                made += 1
                self.decode_s += time.perf_counter() - started
                yield column, sampled
                self._drop_finished()
            self._finish_all("length")
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            hint = "use a shorter context, fewer samples or a quantised model"
            raise ModelError(f"out of memory while generating ({reason})", hint=hint) from None
        finally:
            self._forget_drafts()

    def _prefill(self) -> bool:
        """Brings the prompt into the cache but for what it shares already. False: cancelled."""
        started = time.perf_counter()
        if self.engine.threads is not None:
            self.engine.threads.begin(len(self.rows))
        cache, prompt = self.cache, self._prompt
        shared = _common_prefix(cache.row_tokens(), prompt)
        # The last token is always computed: its logits are needed.
        self.reused = min(shared, len(prompt) - 1)
        cache.truncate(self.reused)
        model = self.engine.model
        chunk = PREFILL_CHUNK.get(model.device.type, 512)
        hidden = torch.empty(0)
        for start in range(self.reused, len(prompt), chunk):
            if self._cancelled():
                self._finish_all("cancelled")
                return False
            piece = torch.tensor([prompt[start : start + chunk]], device=model.device)
            hidden = model.hidden(piece, cache)[:, -1]  # only the last position needs a head
        logits = model.logits(hidden)  # (1, V)
        self.prefilled = len(prompt) - self.reused
        if len(self.rows) > 1:
            room = self.engine.capacity(len(prompt) + (self._max_tokens or 0), cache.limit)
            self._working = cache.fork(len(self.rows), capacity=room)
        self._ready = [logits.expand(len(self.rows), -1)]
        self.prefill_s = time.perf_counter() - started
        return True

    def _make_ready(self) -> bool:
        """Runs the model if a row needs logits for its next token. False: the rows ended."""
        if self._cancelled():
            self._finish_all("cancelled")
            return False
        if self._ready or all(self.rows[row].forced for row in self._active):
            return True
        room = self._working.limit - self._working.length - len(self._pending)
        if room < 0:
            self._finish_all("context")
            return False
        draft: list[int] = []
        if self.drafts is not None and len(self._active) == 1:
            draft = self.drafts.propose()[:room]
        columns = [*self._pending, *([token] for token in draft)]
        tokens = torch.tensor(columns).T  # (A, T)
        logits = self.engine.forward(tokens, self._working)
        self.steps += 1
        first = len(self._pending) - 1
        self._ready = [logits[:, at] for at in range(first, len(columns))]
        self._ahead, self._drafted, self._pending = draft, len(draft), []
        return True

    def _next_column(self) -> Column:
        """The next token of every row: forced, or sampled from the logits that are ready."""
        logits = self._ready.pop(0) if self._ready else None
        draws = torch.rand(len(self.rows), generator=self._random, dtype=torch.float64).tolist()
        needs = [at for at, row in enumerate(self._active) if not self.rows[row].forced]
        chosen = {}
        if needs:
            assert logits is not None
            wanted = logits if len(needs) == len(self._active) else logits[needs]
            tokens = self._sample(wanted, [self._active[at] for at in needs], draws)
            chosen = dict(zip(needs, tokens, strict=True))
        column, sampled = [ENDED] * len(self.rows), [False] * len(self.rows)
        for at, number in enumerate(self._active):
            row = self.rows[number]
            token = chosen[at] if at in chosen else row.forced.popleft()
            column[number], sampled[number] = token, at in chosen
            self._append(number, token, sampled=at in chosen)
        self._follow([column[number] for number in self._active])
        return column, sampled

    def _sample(self, logits: Tensor, numbers: list[int], draws: list[float]) -> list[int]:
        """logits (n, V) of the rows ``numbers`` -> their tokens."""
        raw = logits
        if self.sampling.needs_history or self.sampling.logit_bias:
            logits = adjust(logits, self.sampling, [self.rows[n].tokens for n in numbers])
        if self._constraints:
            logits = self._masked(logits, numbers)
        tokens = choose(logits, self.sampling, [draws[n] for n in numbers])
        if self.sampling.logprobs is not None:
            for line, number, token in zip(raw, numbers, tokens, strict=True):
                self.rows[number].logprobs.append(top_logprobs(line, token, self.sampling.logprobs))
        return tokens

    def _masked(self, logits: Tensor, numbers: list[int]) -> Tensor:
        logits = logits.clone()
        for line, number in zip(logits, numbers, strict=True):
            allowed = self._constraints[number].allowed()
            if allowed is not None:
                known = allowed.to(logits.device)
                line[: len(known)].masked_fill_(~known[: len(line)], -torch.inf)
                line[len(known) :] = -torch.inf
        return logits

    def _append(self, number: int, token: int, *, sampled: bool) -> None:
        row, engine = self.rows[number], self.engine
        row.append(token, engine.stop_ids, self._tools, engine.tokenizer)
        if self.drafts is not None:
            self.drafts.extend([token])
        if sampled and self._constraints and not row.completed:
            constraint = self._constraints[number]
            constraint.accept(token)
            if constraint.finished:
                row.finish = "stop"
        text = self._texts[number]
        if text is not None and text.push(token) and not row.completed:
            row.finish = "stop_string"

    def _follow(self, column: list[int]) -> None:
        """Accounts for a column said: a draft that holds is in the cache already."""
        holds = bool(self._ahead) and column == [self._ahead[0]]
        if holds:
            self._ahead.pop(0)
        if self._drafted and self.drafts is not None and not (holds and self._ahead):
            self.drafts.feedback(self._drafted, self._drafted - len(self._ahead))
            self._drafted = 0
        if not holds:
            self._forget_drafts()
            self._pending.append(column)

    def _forget_drafts(self) -> None:
        if self._ahead:
            self._working.truncate(self._working.length - len(self._ahead))
            self._ahead = []
        self._ready = []

    def _drop_finished(self) -> None:
        """Takes rows that ended out of the cache, so that they cost nothing more."""
        keep = [at for at, row in enumerate(self._active) if not self.rows[row].completed]
        if len(keep) == len(self._active):
            return
        self._active = [self._active[at] for at in keep]
        if keep:
            self._working.select(keep)
            self._pending = [[column[at] for at in keep] for column in self._pending]

    def _finish_all(self, reason: FinishReason) -> None:
        for number in self._active:
            self.rows[number].finish = self.rows[number].finish or reason
        self._active = []


def _check_arguments(
    model: GPT,
    tokens: list[int],
    num_samples: int,
    max_tokens: int | None,
    lookup: Lookup | None,
    cache: KVCache | None,
) -> None:
    if not tokens:
        raise ModelError("the prompt is empty", hint="a prompt needs at least one token")
    vocab = model.config.vocab_size
    if outside := [token for token in tokens if not 0 <= token < vocab]:
        raise ModelError(f"token {outside[0]} is outside the vocabulary of {vocab}")
    if num_samples < 1:
        raise ModelError(f"num_samples {num_samples} is out of range")
    if max_tokens is not None and max_tokens < 1:
        raise ModelError(f"max_tokens {max_tokens} is out of range")
    if lookup is not None and num_samples > 1:
        raise ModelError("prompt lookup works for one sample only")
    if cache is not None and cache.batch != 1:
        raise ModelError(f"a conversation's cache has one row, this one has {cache.batch}")


def _one_per_row(constraint: Constraint | None, count: int) -> list[Constraint]:
    if constraint is None:
        return []
    return [constraint.fork() for _ in range(count)]


def _common_prefix(held: list[int], tokens: list[int]) -> int:
    size = min(len(held), len(tokens))
    if held[:size] == tokens[:size]:  # the usual case, compared without a loop
        return size
    return next(at for at in range(size) if held[at] != tokens[at])
