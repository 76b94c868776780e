"""Reorders proposed edits by how likely the file is after them.

The probability of an edit says how likely the model would make it, after all that was said before.
The file says more: with the right edit, it becomes likelier than it was, mostly in what follows.
Proposals are weighed by both, as in a noisy channel model (Yee et al. 2019, arXiv:1908.05731; for
faults in programs, Ray et al. 2016, arXiv:1506.01159).

Files are scored as in pretraining: from their start, without numbers, after a line with the path.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from agentcli.inference.engine import Engine
from agentcli.inference.propose import Proposal
from agentcli.model.kv_cache import KVCache, Snapshot, common_prefix

AFTER = 32
"""Tokens after an edit that are scored."""
WEIGHT = 0.6
"""Weight of what the file gains, relative to the log probability of the edit."""
CLIP = 2.0
"""The most, in nats, that the changed text or one token after it can gain or lose. Without it, each
edit that makes a line shorter or more common would gain much."""
LOOKAHEAD = 16
"""Proposals that are compared with each other before the best one is yielded."""
BLOCK = 2000
"""Characters; an edit is scored after one to two blocks of the text before it."""
MARGIN = 400
"""Characters kept after an edit's block: more than ``AFTER`` tokens."""
MAX_PARTS = 4
"""Parts of files whose scores are kept."""


@dataclass(frozen=True)
class _Part:
    """A part of a file: its tokens, their log probabilities, and its keys and values."""

    tokens: list[int]
    logprobs: list[float]  # of each token, given those before; 0 for the first
    snapshot: Snapshot


class Files:
    """Scores edits of files by what they change about the likelihood of the text."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cache = engine.model.new_cache()
        self._parts: OrderedDict[str, _Part] = OrderedDict()

    def gain(self, path: str, text: str, old: str, new: str) -> float:
        """Return how much likelier a file is if ``old`` becomes ``new``, in clipped nats.

        It is 0 if ``text`` does not contain ``old`` exactly once.
        """
        if text.count(old) != 1 or old == new:
            return 0.0
        at = text.index(old)
        begin = max(0, at // BLOCK - 1) * BLOCK
        end = ((at + len(old)) // BLOCK + 1) * BLOCK + MARGIN
        head = f"# {path}\n"
        part = self._part(head + text[begin:end])
        edited = self._encode(head + text[begin:at] + new + text[at + len(old) : end])
        same = common_prefix(part.tokens, edited)
        rest = common_prefix(part.tokens[same:][::-1], edited[same:][::-1])
        first = len(edited) - rest  # of the tokens after the edit
        count = min(rest, AFTER)
        if not count or not same:
            return 0.0
        values = self._logprobs(part, same, edited[: first + count])
        changed = len(part.tokens) - rest
        itself = sum(values[:-count]) - sum(part.logprobs[same:changed])
        pairs = zip(values[-count:], part.logprobs[changed:][:count], strict=True)
        return sum(map(_clipped, (itself, *(now - before for now, before in pairs))))

    def _part(self, text: str) -> _Part:
        part = self._parts.pop(text, None)
        if part is None:
            tokens = self._encode(text)
            self._cache.reset()
            logprobs = [0.0, *_logprobs(self._engine, self._cache, tokens)]
            part = _Part(tokens, logprobs, self._cache.snapshot(0))
        self._parts[text] = part
        while len(self._parts) > MAX_PARTS:
            self._parts.popitem(last=False)
        return part

    def _logprobs(self, part: _Part, same: int, tokens: Sequence[int]) -> list[float]:
        """The log probabilities of ``tokens[same:]``; those before are as in ``part``."""
        self._cache.restore(part.snapshot, same - 1)
        return _logprobs(self._engine, self._cache, tokens)

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._engine.tokenizer
        start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        room = self._cache.limit - 1
        return [*start, *tokenizer.encode(text)][:room]


def _clipped(value: float) -> float:
    return max(-CLIP, min(CLIP, value))


@torch.inference_mode()
def _logprobs(engine: Engine, cache: KVCache, tokens: Sequence[int]) -> list[float]:
    """Add tokens to the cache; return the log probabilities of all but the first new one."""
    new = torch.tensor([tokens[cache.length :]], device=engine.model.device)
    hidden = engine.model.hidden(new, cache)[0, :-1]
    rows = torch.log_softmax(engine.model.logits(hidden), dim=-1)
    values: list[float] = rows.gather(1, new[0, 1:, None])[:, 0].tolist()
    return values


def reranked(
    proposals: Iterable[Proposal], gain: Callable[[Proposal], float]
) -> Iterator[Proposal]:
    """Yield the best of the next few proposals, again and again, with their ``gain`` weighed in."""
    waiting: list[tuple[float, int, Proposal]] = []
    for number, proposal in enumerate(proposals):
        total = proposal.logprob * len(proposal.tokens) + WEIGHT * gain(proposal)
        better = replace(proposal, logprob=total / len(proposal.tokens))
        heapq.heappush(waiting, (-total, number, better))
        if len(waiting) > LOOKAHEAD:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]
