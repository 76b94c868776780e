"""The wire formats that the scripted server speaks, one module each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.wires import anthropic, chat, responses

if TYPE_CHECKING:
    from tests.server import Reply


@dataclass(frozen=True)
class Wire:
    """A wire format. ``check`` lists what the real service would reject; the rest build bodies."""

    check: Callable[[Mapping[str, Any]], list[str]]
    whole: Callable[[Reply, Mapping[str, Any]], Mapping[str, Any]]
    events: Callable[[Reply, Mapping[str, Any]], Iterator[tuple[str, Mapping[str, Any]]]]
    error: Callable[[Reply], bytes]
    end: bytes = b""

    def body(self, reply: Reply, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON body."""
        return json.dumps(self.whole(reply, request), ensure_ascii=False).encode()

    def stream(self, reply: Reply, request: Mapping[str, Any]) -> bytes:
        """The answer as server-sent events."""
        parts: list[bytes] = []
        for name, event in self.events(reply, request):
            if name:
                parts.append(f"event: {name}\n".encode())
            parts.append(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")
        if reply.done and reply.error_event is None:
            parts.append(self.end)
        return b"".join(parts)


_WIRES = {
    "/chat/completions": Wire(chat.check, chat.whole, chat.events, chat.error, b"data: [DONE]\n\n"),
    "/responses": Wire(responses.check, responses.whole, responses.events, chat.error),
    "/messages": Wire(anthropic.check, anthropic.whole, anthropic.events, anthropic.error),
    "/messages/count_tokens": Wire(
        anthropic.check, anthropic.whole, anthropic.events, anthropic.error
    ),
}


def wire_of(path: str) -> Wire | None:
    """The wire that serves this path, or None."""
    for end, wire in _WIRES.items():
        if path.endswith(end):
            return wire
    return None
