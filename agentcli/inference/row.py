"""The state of one row of a generation, including its in-stream tool calls.

A model calls an in-stream tool by writing a block between two special tokens; the text between them
is the call. The result is appended as forced tokens, which are not sampled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agentcli.model.tokenizer import StreamDecoder, Tokenizer

# Why a row ended: a stop token, a stop string, max_tokens, a full context, or a cancellation.
FinishReason = Literal["stop", "stop_string", "length", "context", "cancelled"]

# Takes the call and returns its result; None inserts no result.
InlineTool = Callable[[str], str | None]


@dataclass(frozen=True)
class ToolTags:
    """The tokens around a call and around its result."""

    call_start: int
    call_end: int
    result_start: tuple[int, ...]
    result_end: tuple[int, ...]

    @classmethod
    def nanochat(cls, tokenizer: Tokenizer) -> ToolTags:
        """Return nanochat's tags.

        Raises:
            ModelError: the tokenizer lacks nanochat's special tokens.
        """
        ids = [
            tokenizer.special_id(f"<|{name}|>")
            for name in ("python_start", "python_end", "output_start", "output_end")
        ]
        return cls(ids[0], ids[1], (ids[2],), (ids[3],))


@dataclass(frozen=True)
class InlineTools:
    """A tool that the model may call within its answer."""

    tags: ToolTags
    run: InlineTool


@dataclass
class RowState:
    """One row of a generation.

    Attributes:
        tokens: The prompt and all tokens after it.
        n_prompt: The number of prompt tokens.
        forced: Tokens to append before any more are sampled.
        in_call: Whether a call is open.
        call_tokens: The tokens of the open call.
        finish: Why the row ended; None while it goes on.
        logprobs: For each sampled token, its log probability and the likeliest ones, if requested.
    """

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
        """Append the next token, sampled or forced, and run the tool if it closes a call."""
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
    """Cuts a stream of text before the first stop string.

    ``push`` returns the text that is safe to show. Text that may be the start of a stop string is
    held back until that is decided.
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
        """Return the length of the longest suffix of the held text that begins a stop string."""
        longest = max((len(s) for s in self._strings), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-size:]) for s in self._strings):
                return size
        return 0


class RowText:
    """Decodes a row's tokens and looks for stop strings."""

    def __init__(self, decoder: StreamDecoder, strings: Sequence[str]) -> None:
        self._decoder, self._stops = decoder, StopStrings(strings)

    def push(self, token: int) -> bool:
        """Add a token; return whether a stop string is complete."""
        self._stops.push(self._decoder.push(token))
        return self._stops.stopped
