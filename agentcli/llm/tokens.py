"""Counts or estimates the tokens of messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agentcli.messages import Image, Message, Text, Thinking, ToolCall, ToolResult

MESSAGE_TOKENS = 4
"""Overhead of a message: its role and the marks around it."""
IMAGE_TOKENS = 1500
"""Approximate maximum for an image of any size, because providers scale images down."""
_BYTES_PER_TOKEN = 4.0
Count = Callable[[str], float]
"""A function from a text to its number of tokens."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The tokens of a request's prompt, an estimate unless ``exact``."""

    tokens: int
    exact: bool


def vocabulary_of(model: str) -> str | None:
    """The vocabulary of an OpenAI model by the model's name; None for other models."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    if re.match(r"gpt-(4(-|$)|3\.5|35)", name):
        return "cl100k_base"
    return "o200k_base" if re.match(r"(chatgpt|codex|gpt|o\d)(-|$)", name) else None


def estimate(text: str) -> float:
    """Estimate the tokens of a text without its model's vocabulary."""
    return len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN


def message_tokens(message: Message, count: Count) -> float:
    """The tokens of a message, with ``count`` for its texts."""
    return MESSAGE_TOKENS + sum(_part_tokens(part, count) for part in message.parts)


def _part_tokens(part: object, count: Count) -> float:
    match part:
        case Text(text) | Thinking(text):
            return count(text)
        case ToolCall(_, name, arguments):
            return MESSAGE_TOKENS + count(name) + count(arguments)
        case ToolResult(content=content, images=images):
            return count(content) + IMAGE_TOKENS * len(images)
        case Image():
            return IMAGE_TOKENS
    return 0.0
