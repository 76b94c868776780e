"""Caches messages in a provider's format, so that a step only encodes what is new."""

from __future__ import annotations

import asyncio
import json
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from agentcli.errors import InternalError
from agentcli.llm.tokens import estimate, message_tokens
from agentcli.messages import Message, Role, ToolDefinition, ToolResult

_CONVERSATIONS = 16


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; lone surrogates, which no provider accepts, become ``?``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


@dataclass(slots=True)
class Encoded:
    """The encoded part of a conversation.

    ``wires`` are the messages in the provider's format, ``joined`` the same joined by commas,
    ``sizes`` the tokens of each message, ``open_after`` the ids of calls without results after
    each message, and ``call_ids`` all call ids so far.
    """

    messages: list[Message] = field(default_factory=list)
    wires: list[bytes] = field(default_factory=list)
    joined: bytearray = field(default_factory=bytearray)
    sizes: list[float] = field(default_factory=list)
    open_after: list[frozenset[str]] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)

    def keep(self, count: int) -> None:
        """Drop all but the first ``count`` messages."""
        if count < len(self.wires):
            self.joined = bytearray(b",".join(self.wires[:count]))
        for column in (self.messages, self.wires, self.sizes, self.open_after):
            del column[count:]


class WireCache:
    """Encodes and measures each message of a conversation once, and tools when they change.

    ``after_results`` encodes what follows all results of an answer.
    """

    def __init__(
        self,
        encode: Callable[[Message], bytes],
        encode_tools: Callable[[Sequence[ToolDefinition]], bytes],
        after_results: Callable[[Sequence[ToolResult]], list[bytes]] = lambda results: [],
    ) -> None:
        self._encode = encode
        self._encode_tools = encode_tools
        self._after_results = after_results
        self._measure: Callable[[Message], float] = lambda m: message_tokens(m, estimate)
        self._conversations: OrderedDict[str, Encoded] = OrderedDict()
        self._tools: tuple[Sequence[ToolDefinition], bytes] | None = None

    def messages(self, conversation: str, messages: Sequence[Message]) -> Encoded:
        """Encode all messages, reusing the common prefix with the conversation's last request.

        Raises:
            InternalError: a call has no result or a result no call, which no provider accepts.
        """
        encoded = self._conversations.setdefault(conversation, Encoded())
        self._conversations.move_to_end(conversation)
        if len(self._conversations) > _CONVERSATIONS:
            self._conversations.popitem(last=False)
        encoded.keep(_common(encoded.messages, messages))
        for message in messages[len(encoded.messages) :]:
            self._add(encoded, message)
        if encoded.open_after and encoded.open_after[-1]:
            raise InternalError(f"calls without results: {', '.join(encoded.open_after[-1])}")
        return encoded

    def tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """Encode all definitions, again only if they have changed."""
        known = self._tools
        if known is None or (known[0] is not tools and known[0] != tools):
            known = self._tools = (tools, self._encode_tools(tools))
        return known[1]

    async def measure(self, measure: Callable[[Message], float]) -> None:
        """Use ``measure`` from now on, and measure past messages again in a thread.

        It takes about 0.25 s for 250,000 tokens.
        """
        self._measure = measure
        for encoded in list(self._conversations.values()):
            messages = list(encoded.messages)
            sizes = await asyncio.to_thread(_measured, measure, messages)
            same = _common(messages, encoded.messages)  # it may have changed meanwhile
            encoded.sizes[:same] = sizes[:same]

    def _add(self, encoded: Encoded, message: Message) -> None:
        message.validate()
        pending = encoded.open_after[-1] if encoded.open_after else frozenset[str]()
        if message.role is Role.TOOL:
            call_id = message.result.call_id
            if call_id not in pending:
                raise InternalError(f"a result for the unknown call {call_id}")
            pending -= {call_id}
        elif pending:
            raise InternalError(f"calls without results: {', '.join(pending)}")
        else:
            pending = frozenset(call.id for call in message.calls)
            encoded.call_ids |= pending
        wire = self._encode(message)
        encoded.messages.append(message)
        if message.role is Role.TOOL and not pending:
            wire = b",".join([wire, *self._after_results(_last_results(encoded.messages))])
        if encoded.wires:
            encoded.joined += b","
        encoded.wires.append(wire)
        encoded.joined += wire
        encoded.sizes.append(self._measure(message))
        encoded.open_after.append(pending)


def _last_results(messages: Sequence[Message]) -> list[ToolResult]:
    """The results at the end, all of one answer."""
    last = takewhile(lambda message: message.role is Role.TOOL, reversed(messages))
    return [message.result for message in last][::-1]


def _measured(measure: Callable[[Message], float], messages: Sequence[Message]) -> list[float]:
    return list(map(measure, messages))


def _common(known: Sequence[Message], messages: Sequence[Message]) -> int:
    """The length of the common prefix."""
    if len(known) <= len(messages) and all(map(operator.is_, known, messages)):
        return len(known)
    for count, (one, other) in enumerate(zip(known, messages, strict=False)):
        if one is not other and one != other:
            return count
    return min(len(known), len(messages))
