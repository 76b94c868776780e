"""What messages take in tokens: exactly where that can be known, else an estimate that says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agentcli.messages import Image, Message, Text, Thinking, ToolCall, ToolResult

MESSAGE_TOKENS = 4
"""What a message takes beside its text: its role and the marks around it."""
IMAGE_TOKENS = 1500
"""About the most that an image takes, whatever its size: providers scale it down."""
_BYTES_PER_TOKEN = 4.0
Count = Callable[[str], float]
"""From a text to its tokens."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of a request's prompt; not ``exact``: about so many."""

    tokens: int
    exact: bool


def vocabulary_of(model: str) -> str | None:
    """The vocabulary of one of OpenAI's models, by its name; None for all others."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    if re.match(r"gpt-(4(-|$)|3\.5|35)", name):
        return "cl100k_base"
    return "o200k_base" if re.match(r"(chatgpt|codex|gpt|o\d)(-|$)", name) else None


def estimate(text: str) -> float:
    """About the tokens of a text where its model's vocabulary is not to be had."""
    return len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN


def message_tokens(message: Message, count: Count) -> float:
    """What a message takes, by ``count`` of its texts."""
    return MESSAGE_TOKENS + sum(_part_tokens(part, count) for part in message.parts)


def _part_tokens(part: object, count: Count) -> float:
    match part:
        case Text(text) | Thinking(text):
            return count(text)
        case ToolCall(_, name, arguments):
            return MESSAGE_TOKENS + count(name) + count(arguments)
        case ToolResult(content=content):
            return count(content)
        case Image():
            return IMAGE_TOKENS
    return 0.0
