"""RowState: what one row of a generation is doing, and the tool state machine within it.

A model that may use a tool within its answer opens a block with one special token, writes, and
closes the block with another. The text between is the call; its result comes back as forced
tokens: nobody samples them, they simply are what comes next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agentcli.model.tokenizer import StreamDecoder, Tokenizer

# Why a row ended: a stop token, a stop string, max_tokens, a full context, or the caller.
FinishReason = Literal["stop", "stop_string", "length", "context", "cancelled"]

# The call in, the result out; None: no result, the model goes on by itself.
InlineTool = Callable[[str], str | None]


@dataclass(frozen=True)
class ToolTags:
    """Tokens around a call and around its result."""

    call_start: int
    call_end: int
    result_start: tuple[int, ...]
    result_end: tuple[int, ...]

    @classmethod
    def nanochat(cls, tokenizer: Tokenizer) -> ToolTags:
        """Raises ModelError if the tokenizer lacks nanochat's special tokens."""
        ids = [
            tokenizer.special_id(f"<|{name}|>")
            for name in ("python_start", "python_end", "output_start", "output_end")
        ]
        return cls(ids[0], ids[1], (ids[2],), (ids[3],))


@dataclass(frozen=True)
class InlineTools:
    """A tool that runs within the token stream."""

    tags: ToolTags
    run: InlineTool


@dataclass
class RowState:
    """One row. ``tokens`` are the prompt and all that came after it."""

    tokens: list[int]
    n_prompt: int = 0
    forced: deque[int] = field(default_factory=deque)
    in_call: bool = False
    call_tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    logprobs: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        return self.finish is not None

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.n_prompt :]

    def append(
        self,
        token: int,
        stop_ids: frozenset[int],
        tools: InlineTools | None,
        tokenizer: Tokenizer,
    ) -> None:
        """Takes the next token, sampled or forced; runs the tool when its call closes."""
        self.tokens.append(token)
        if token in stop_ids:
            self.finish = "stop"
        if tools is None:
            return
        tags = tools.tags
        if token == tags.call_start:
            self.in_call, self.call_tokens = True, []
        elif token == tags.call_end and self.in_call:
            self.in_call = False
            if self.call_tokens:
                result = tools.run(tokenizer.decode(self.call_tokens))
                if result is not None:
                    self.forced.extend(tags.result_start)
                    self.forced.extend(tokenizer.encode(result))
                    self.forced.extend(tags.result_end)
            self.call_tokens = []
        elif self.in_call:
            self.call_tokens.append(token)


class StopStrings:
    """Cuts a stream of text before the first of several strings.

    ``push`` returns what is safe to show: text that could be the start of a stop string is held
    back until it is known not to be one.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        places = [at for s in self._strings if (at := self._held.find(s)) >= 0]
        if places:
            self.stopped = True
            return self._take(min(places))
        return self._take(len(self._held) - self._overlap())

    def finish(self) -> str:
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out

    def _overlap(self) -> int:
        """Length of the longest end of what is held that begins a stop string."""
        longest = max((len(s) for s in self._strings), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-size:]) for s in self._strings):
                return size
        return 0


class RowText:
    """Tells a row when its text contains a stop string."""

    def __init__(self, decoder: StreamDecoder, strings: Sequence[str]) -> None:
        self._decoder, self._stops = decoder, StopStrings(strings)

    def push(self, token: int) -> bool:
        """True once a stop string is complete."""
        self._stops.push(self._decoder.push(token))
        return self._stops.stopped
