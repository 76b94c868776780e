"""Messages in a provider's form, made once each: a step then costs what is new in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentcli.errors import InternalError
from agentcli.messages import Message, Role, ToolDefinition

_SPARE = 1024


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; lone surrogates, which no provider takes, become ``?``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Entry:
    message: Message  # held, so that its id() stays its own
    wire: bytes
    calls: tuple[str, ...]
    result: str | None


class WireCache:
    """Encodes messages and tool definitions, each object once."""

    def __init__(
        self,
        encode: Callable[[Message], bytes],
        encode_tools: Callable[[Sequence[ToolDefinition]], bytes],
    ) -> None:
        self._encode = encode
        self._encode_tools = encode_tools
        self._entries: dict[int, _Entry] = {}
        self._tools: tuple[Sequence[ToolDefinition], bytes] | None = None

    def messages(self, messages: Sequence[Message]) -> list[bytes]:
        """Each message encoded.

        Raises:
            InternalError: a call without its result, or the reverse; no provider takes that.
        """
        wires: list[bytes] = []
        pending: set[str] = set()
        for message in messages:
            entry = self._entries.get(id(message)) or self._add(message)
            wires.append(entry.wire)
            if entry.result is not None:
                if entry.result not in pending:
                    raise InternalError(f"a result for the unknown call {entry.result}")
                pending.remove(entry.result)
            elif pending:
                raise InternalError(f"calls without results: {', '.join(sorted(pending))}")
            elif entry.calls:
                pending.update(entry.calls)
        if pending:
            raise InternalError(f"calls without results: {', '.join(sorted(pending))}")
        if len(self._entries) > 2 * len(messages) + _SPARE:
            kept = {id(message) for message in messages}
            self._entries = {key: e for key, e in self._entries.items() if key in kept}
        return wires

    def tools(self, tools: Sequence[ToolDefinition]) -> bytes:
        """All definitions, encoded again only for another sequence of them."""
        if self._tools is None or self._tools[0] is not tools:
            self._tools = (tools, self._encode_tools(tools))
        return self._tools[1]

    def _add(self, message: Message) -> _Entry:
        message.validate()
        entry = _Entry(
            message,
            self._encode(message),
            tuple(call.id for call in message.calls),
            message.result.call_id if message.role is Role.TOOL else None,
        )
        self._entries[id(message)] = entry
        return entry
