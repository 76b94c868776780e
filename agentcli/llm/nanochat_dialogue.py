"""Conversations in ``NanochatFormat``, for the embedded model and others of its kind.

The model's own turns are sent back as the tokens it sampled, because their text may be tokenised
differently. If a conversation grows too long, old results are left out.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcli.errors import ContextWindowError
from agentcli.llm.chat_format import Prompt, Recent
from agentcli.llm.client import (
    ChatRequest,
    Finished,
    StreamEvent,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from agentcli.llm.nanochat_format import (
    INLINE_ARGUMENT,
    INLINE_TOOL,
    NanochatFormat,
    NanochatParser,
    arguments_text,
    is_open,
)
from agentcli.llm.window import fitted
from agentcli.messages import FinishReason, Message, Role, ToolDefinition
from agentcli.model.tokenizer import Tokenizer

ANSWER_TOKENS = 640
"""Room kept free for an answer in a long conversation."""

_PYTHON_START, _PYTHON_END = "<|python_start|>", "<|python_end|>"

_TurnKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class _Conversation:
    """The sampled tokens of the model's turns by content, and the results left out."""

    turns: dict[_TurnKey, list[int]] = field(default_factory=dict)
    short: frozenset[int] = frozenset()


class NanochatDialogue:
    """See ``Dialogue``."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._format = NanochatFormat(tokenizer)
        self._conversations = Recent(_Conversation)

    def prompt(self, request: ChatRequest, window: int) -> Prompt:
        conversation = self._conversations.of(request.conversation)
        messages: Sequence[Message] = request.messages
        pieces = self._pieces(messages, conversation)
        room = window - min(ANSWER_TOKENS, window // 4)
        before = conversation.short
        messages, conversation.short = fitted(
            messages,
            [len(piece) for piece in pieces],
            room,
            short=before,
            size_of=self.size_of,
        )
        tokens = [token for piece in self._pieces(messages, conversation) for token in piece]
        if not is_open(messages):
            tokens.append(self._tokenizer.special_id("<|assistant_start|>"))
        if len(tokens) >= window:
            raise ContextWindowError(
                f"the conversation of {len(tokens)} tokens does not fit the window of {window}",
                hint="Begin a new session, or choose another model",
                provider="local",
            )
        left_out = conversation.short != before
        return Prompt(tokens, "old results were left out to fit the window" if left_out else "")

    def turn(self, request: ChatRequest, prompt: Prompt) -> Mapping[str, Any]:
        return {
            "tools": [offered(tool) for tool in request.tools if tool.name != INLINE_TOOL],
            "inline": any(tool.name == INLINE_TOOL for tool in request.tools),
        }

    def parser(self, request: ChatRequest, prompt: Prompt) -> _InlineParser:
        return _InlineParser(self._tokenizer)

    def record(
        self, request: ChatRequest, prompt: Prompt, message: Message, tokens: Sequence[int]
    ) -> None:
        turns = self._conversations.of(request.conversation).turns
        turns[_turn_key(message)] = list(tokens)

    def size_of(self, message: Message) -> int:
        """The number of tokens of one message."""
        return len(self._format.segments([message])[0].tokens)

    def _pieces(self, messages: Sequence[Message], conversation: _Conversation) -> list[list[int]]:
        """The tokens of each message, as sampled if the model wrote it."""
        pieces: list[list[int]] = []
        start = self._tokenizer.special_id("<|assistant_start|>")
        for message, segment in zip(messages, self._format.segments(messages), strict=True):
            piece = segment.tokens
            if message.role is Role.ASSISTANT:
                sampled = conversation.turns.get(_turn_key(message))
                if sampled is not None:
                    opened = 1 + piece.index(start) if start in piece else 0
                    piece = [*piece[:opened], *sampled]
            pieces.append(piece)
        return pieces


class _InlineParser:
    """Reads an answer. An in-stream block at its end becomes a tool call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._parser = NanochatParser(tokenizer)
        self._tokens: list[int] = []

    def feed(self, token: int) -> list[StreamEvent]:
        self._tokens.append(token)
        return self._parser.feed(token)

    def finish(self, reason: FinishReason | None = None) -> list[StreamEvent]:
        tokens = self._tokens
        if not tokens or tokens[-1] != self._tokenizer.special_id(_PYTHON_END):
            return self._parser.finish(reason)
        start = len(tokens) - 1 - tokens[::-1].index(self._tokenizer.special_id(_PYTHON_START))
        data = b"".join(self._tokenizer.token_bytes(token) for token in tokens[start + 1 : -1])
        source = codecs.decode(data, "utf-8", "replace")
        head = [event for event in self._parser.finish() if not isinstance(event, Finished)]
        return [
            *head,
            ToolCallStart(0, "call_0", INLINE_TOOL),
            ToolCallDelta(0, arguments_text(**{INLINE_ARGUMENT: source})),
            ToolCallEnd(0),
            Finished(FinishReason.TOOL_CALLS),
        ]


def _turn_key(message: Message) -> _TurnKey:
    """A key for a turn's content, without call ids, which the model does not choose."""
    return message.text, tuple((call.name, call.arguments) for call in message.calls)


def offered(tool: ToolDefinition) -> Mapping[str, Any]:
    """A tool's definition in the form that the engine process expects."""
    return {
        "name": tool.name,
        "parameters": tool.parameters,
        "text_of": tool.text_of,
        "variant_of": tool.variant_of,
    }
