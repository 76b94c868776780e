"""Engine: generates tokens. It prefills the prompt once, forks the KV cache per row, and decodes.

    engine = Engine(model, tokenizer)
    for column, sampled in engine.generate(tokens, num_samples=2, max_tokens=100):
        ...                         # one token per row; sampled is False for forced tokens

``generate`` returns a Generation, an iterator that also has the rows, the timings and the reuse.
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
from agentcli.inference.sampling import Sampling, adjust, choose, possible, top_logprobs
from agentcli.inference.speculate import Lookup, PromptLookup
from agentcli.inference.threads import StepThreads
from agentcli.model.gpt import GPT
from agentcli.model.kv_cache import KVCache, common_prefix
from agentcli.model.tokenizer import Tokenizer

# The token of an ended row in a column.
ENDED = -1
# Tokens per forward pass of a prefill: limits memory and the delay of a cancellation.
PREFILL_CHUNK = {"cpu": 512, "cuda": 8192}
ROOM = 1024
"""New tokens for which a cache has room from the beginning; most answers are shorter."""

Column = tuple[list[int], list[bool]]


class Engine:
    """Generates with one model. It keeps no conversations: the caller owns the KV caches.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        stop_ids: The tokens that end a row; by default, the tokenizer's end and beginning tokens.
        graphs: Whether to replay decode steps as CUDA graphs; by default, on CUDA.
        compiled: Whether to compile these steps with torch.compile first.
        threads: Chooses the number of CPU threads; by default, torch's setting applies.
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
        """Continue ``tokens`` in ``num_samples`` rows.

        Args:
            tokens: The prompt.
            num_samples: The number of rows.
            max_tokens: The limit per row, including forced tokens; by default, the context.
            sampling: How to choose tokens.
            constraint: A constraint, forked for each row.
            tools: The tool that the model may call in its answer.
            stop: Strings that end a row.
            lookup: Enables speculative decoding by prompt lookup, for one row only.
            cache: The one-row KV cache of a conversation. The prefix it shares with ``tokens`` is
                reused, the rest dropped. With one sample, it includes the answer afterwards.
            cancelled: Called before each forward pass; ends the generation if it returns True.

        Raises:
            ContextLengthError: the prompt does not fit the context.
            ModelError: the prompt is empty, or an argument is out of range.
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
        """Generate all rows; return their tokens, including the prompt, and a mask for each.

        Stop tokens are left out. A mask is True for sampled tokens, False for forced ones and those
        of the prompt.
        """
        rows = [list(tokens) for _ in range(num_samples)]
        masks = [[False] * len(tokens) for _ in range(num_samples)]
        for column, sampled in self.generate(tokens, num_samples=num_samples, **options):
            for i, token in enumerate(column):
                if token != ENDED and token not in self.stop_ids:
                    rows[i].append(token)
                    masks[i].append(sampled[i])
        return rows, masks

    def capacity(self, prompt: int, new: int, limit: int) -> int:
        """Return the initial capacity of a cache for a prompt and at most ``new`` tokens after it.

        It is for all of them if steps are captured in graphs or compiled, because each capacity
        costs that again; if compiled, a power of two.
        """
        if self.graphs is None:
            new = min(new, ROOM)
        positions = prompt + new
        if self.compiled:
            positions = 1 << (positions - 1).bit_length()
        return min(positions, limit)

    def forward(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Append ``tokens`` (B, T), on the host, to the cache; return their logits (B, T, V)."""
        if self.graphs is not None and tokens.shape[1] == 1:
            return self.graphs(tokens, cache)[:, None]
        started = time.perf_counter()
        logits: Tensor = self.model(tokens.to(self.model.device), cache)
        if self.threads is not None and tokens.shape[1] == 1:
            self.threads.stepped(time.perf_counter() - started)
        return logits


class Generation(Iterator[Column]):
    """A generation in progress: an iterator over columns of one token per row.

    Attributes:
        rows: The state of each row.
        cache: The KV cache of the conversation.
        reused: Prompt tokens that the cache already had.
        prefilled: Prompt tokens that were computed.
        prefill_s: The time of the prefill, in seconds.
        decode_s: The time of the decoding, in seconds.
        steps: Forward passes of the decoding.
        drafts: Proposes drafts, and counts the drafted and accepted tokens; None without lookup.
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
        hint = engine.capacity(len(tokens), max_tokens or 0, limit)
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
            RowText(engine.tokenizer.stream(inner=True), stop) if stop else None for _ in self.rows
        ]
        self._cancelled = cancelled
        self._random = torch.Generator().manual_seed(sampling.seed)
        # Numbers of the unfinished rows, A of them, in the order of the working cache's rows.
        self._active = list(range(num_samples))
        self._working = self.cache
        self._pending: list[list[int]] = []  # columns returned, but not yet in the cache
        self._logits: list[Tensor] = []  # logits (A, V) for the next columns
        self._replayed: DecodeGraphs | None = None  # the graphs that computed the last logits
        self._draft: list[int] = []  # drafted tokens in the cache, not yet accepted or returned
        self._draft_size = 0  # the length of that draft at first
        self._columns = self._run()

    def __next__(self) -> Column:
        return next(self._columns)

    def close(self) -> None:
        """End early; the cache then has the tokens returned so far."""
        self._columns.close()

    # --- the loop ------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> Generator[Column, None, None]:
        try:
            if not self._prefill():
                return
            n_columns = 0
            while self._active and (self._max_tokens is None or n_columns < self._max_tokens):
                started = time.perf_counter()
                if not self._compute_logits():
                    return
                column, sampled = self._next_column()
                n_columns += 1
                self.decode_s += time.perf_counter() - started
                yield column, sampled
                self._drop_finished()
            self._finish_all("length")
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            hint = "use a shorter context, fewer samples or a quantised model"
            raise ModelError(f"out of memory while generating ({reason})", hint=hint) from None
        finally:
            self._drop_draft()

    def _prefill(self) -> bool:
        """Prefill the part of the prompt that the cache lacks; return False if cancelled."""
        started = time.perf_counter()
        if self.engine.threads is not None:
            self.engine.threads.begin(len(self.rows))
        cache, prompt = self.cache, self._prompt
        shared = common_prefix(cache.row_tokens(), prompt)
        # The last token is always computed, because its logits are needed.
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
            room = self.engine.capacity(len(prompt), self._max_tokens or 0, cache.limit)
            self._working = cache.fork(len(self.rows), capacity=room)
        self._logits = [logits.expand(len(self.rows), -1)]
        self.prefill_s = time.perf_counter() - started
        return True

    def _compute_logits(self) -> bool:
        """Run the model if a row needs logits; return False if the rows ended."""
        if self._cancelled():
            self._finish_all("cancelled")
            return False
        if self._logits or all(self.rows[row].forced for row in self._active):
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
        self._replayed = self.engine.graphs if len(columns) == 1 else None
        self.steps += 1
        first = len(self._pending) - 1
        self._logits = [logits[:, at] for at in range(first, len(columns))]
        self._draft, self._draft_size, self._pending = draft, len(draft), []
        return True

    def _next_column(self) -> Column:
        """Return the next token of every row, forced or sampled, and which were sampled."""
        logits = self._logits.pop(0) if self._logits else None
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
        self._verify_draft([column[number] for number in self._active])
        return column, sampled

    def _sample(self, logits: Tensor, numbers: list[int], draws: list[float]) -> list[int]:
        """Sample a token for each of the rows ``numbers`` from logits (n, V)."""
        plain = self.sampling.greedy and not self.sampling.adjusts and not self._constraints
        if plain and self._replayed is not None and len(numbers) == len(self._active):
            tokens = possible(self._replayed.likeliest())
        else:
            tokens = self._chosen(logits, numbers, draws)
        if self.sampling.logprobs is not None:
            for line, number, token in zip(logits, numbers, tokens, strict=True):
                self.rows[number].logprobs.append(top_logprobs(line, token, self.sampling.logprobs))
        return tokens

    def _chosen(self, logits: Tensor, numbers: list[int], draws: list[float]) -> list[int]:
        if self.sampling.adjusts:
            logits = adjust(logits, self.sampling, [self.rows[n].tokens for n in numbers])
        if self._constraints:
            logits = self._masked(logits, numbers)
        return choose(logits, self.sampling, [draws[n] for n in numbers])

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

    def _verify_draft(self, column: list[int]) -> None:
        """Compare a column with the draft: accepted tokens are already in the cache."""
        accepted = bool(self._draft) and column == [self._draft[0]]
        if accepted:
            self._draft.pop(0)
        if self._draft_size and self.drafts is not None and not (accepted and self._draft):
            self.drafts.feedback(self._draft_size, self._draft_size - len(self._draft))
            self._draft_size = 0
        if not accepted:
            self._drop_draft()
            self._pending.append(column)

    def _drop_draft(self) -> None:
        if self._draft:
            self._working.truncate(self._working.length - len(self._draft))
            self._draft = []
        self._logits = []

    def _drop_finished(self) -> None:
        """Remove finished rows from the cache, so that they cost no more compute."""
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
