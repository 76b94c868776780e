"""Processors that shorten tool results, or leave them out with their calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from agentcli.agent.processors.base import Conversation, Item
from agentcli.agent.processors.gist import gist
from agentcli.messages import Message, Part, Role, Thinking, ToolCall, tool
from agentcli.text import clip, truncate

LEFT_OUT = "[left out; call it again if you need this]"
IMAGES_LEFT_OUT = "[images left out; call it again if you need them]"
IMAGES_REFUSED = "[images left out: the model's provider refused a request with them]"
_ARGUMENT_CHARS = 200
"""The limit for each text in the arguments of a call whose result is left out."""


@dataclass(frozen=True)
class TruncateLongTools:
    """Truncates all results but the last ``kept`` to ``chars`` characters of head and tail.

    Their images are left out.
    """

    chars: int = 2000
    kept: int = 4
    name: str = "truncate_long_tools"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        items = list(conversation.items)
        for number, item in conversation.results(self.kept):
            content = str(truncate(item.message.result.content, self.chars))
            items[number] = _with_content(conversation, item, content)
        return tuple(items)


@dataclass(frozen=True)
class CondenseResults:
    """Reduces all results but the last ``kept`` to their gist, by kind; see ``gist``.

    Their images are left out.
    """

    kept: int = 4
    name: str = "condense_results"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        items = list(conversation.items)
        calls = {call.id: call for item in items for call in item.message.calls}
        for number, item in conversation.results(self.kept):
            result = item.message.result
            kind = conversation.purpose(calls[result.call_id])
            content = gist(kind, result.content)
            items[number] = _with_content(conversation, item, content)
        return tuple(items)


@dataclass(frozen=True)
class KeepRecentToolCalls:
    """Leaves out the results of all but the last ``kept`` calls, and shortens these calls."""

    kept: int = 8
    name: str = "keep_recent_tool_calls"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        items = list(conversation.items)
        gone: set[str] = set()
        for number, item in conversation.results(self.kept):
            gone.add(item.message.result.call_id)
            items[number] = _with_content(conversation, item, LEFT_OUT)
        for number, item in enumerate(conversation.items):
            ids = {call.id for call in item.message.calls}
            if ids and ids <= gone and not item.pinned:
                items[number] = conversation.changed(item, _shortened(item.message))
        return tuple(items)


@dataclass(frozen=True)
class LeaveOutImages:
    """Leaves out the images of all results, for a provider that refuses them."""

    name: str = "leave_out_images"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        items = list(conversation.items)
        for number, item in conversation.results(0):
            result = item.message.result
            if result.images:
                content = f"{result.content}\n{IMAGES_REFUSED}"
                shorter = replace(result, content=content, images=())
                items[number] = conversation.changed(item, tool(shorter))
        return tuple(items)


def _with_content(conversation: Conversation, item: Item, content: str) -> Item:
    result = item.message.result
    if not result.images and len(content) >= len(result.content):
        return item
    if result.images and content != LEFT_OUT:
        content = f"{content}\n{IMAGES_LEFT_OUT}"
    return conversation.changed(item, tool(replace(result, content=content, diff="", images=())))


def _shortened(message: Message) -> Message:
    """An answer without thinking and with short arguments that are still valid JSON."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            parts.append(replace(part, arguments=_short_arguments(part.arguments)))
        elif not isinstance(part, Thinking):
            parts.append(part)
    return Message(Role.ASSISTANT, tuple(parts))


def _short_arguments(text: str) -> str:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text if len(text) <= _ARGUMENT_CHARS else "{}"
    if not isinstance(arguments, dict):
        return text
    short = {
        name: clip(value, _ARGUMENT_CHARS) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    return json.dumps(short, ensure_ascii=False)
