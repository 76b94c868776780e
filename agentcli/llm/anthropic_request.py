"""Encodes messages for Anthropic's Messages API.

Leading system messages become the top-level prompt. Later ones stay in place as marked text in
the user's turn: not every model accepts that role there, and moving them would change the cached
prefix.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from agentcli.llm.wire_cache import Encoded, dumps
from agentcli.llm.wire_calls import argument_object, safe_name
from agentcli.messages import (
    Image,
    Message,
    Outcome,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolResult,
)

_MARK = b',"cache_control":{"type":"ephemeral"}}'
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def message_wire(message: Message) -> bytes:
    """The content blocks of one message, at least one, joined by commas."""
    blocks = [block for part in message.parts for block in _blocks(message, part)]
    if not blocks:
        blocks = [{"type": "text", "text": "(nothing)"}]
    return b",".join(map(dumps, blocks))


def _blocks(message: Message, part: object) -> list[dict[str, Any]]:
    match part:
        case Text(text) if text.strip():
            return [{"type": "text", "text": text}]
        case Thinking(text, signature, _) if signature:
            return [{"type": "thinking", "thinking": text, "signature": signature}]
        case Thinking("", "", data) if data and not data.startswith("{"):
            return [{"type": "redacted_thinking", "data": data}]
        case Image():
            return [_image(part)]
        case ToolCall(id, name, arguments):
            call = {"id": safe_id(id), "name": safe_name(name)}
            return [{"type": "tool_use", **call, "input": argument_object(arguments)}]
        case ToolResult():
            return [_result(part)]
    return []


def _result(result: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": safe_id(result.call_id)}
    content = result.content if result.content.strip() else ""
    if result.images:
        text = [{"type": "text", "text": content}] if content else []
        # Without ``is_error``, which the API allows only beside text. The text says it, too.
        return {**block, "content": [*text, *map(_image, result.images)]}
    if content:
        block["content"] = content
    if result.outcome not in (Outcome.OK, Outcome.FAILED):
        block["is_error"] = True
    return block


def _image(image: Image) -> dict[str, Any]:
    encoded = base64.b64encode(image.data).decode("ascii")
    source = {"type": "base64", "media_type": image.media_type, "data": encoded}
    return {"type": "image", "source": source}


def safe_id(call_id: str) -> str:
    """Another provider's call id, restricted to the characters allowed here."""
    return _NOT_IN_IDS.sub("_", call_id)


def history_wire(history: Encoded) -> tuple[bytes, bytes]:
    """The ``system`` and ``messages`` arrays with cache marks.

    Marks are at the end of the stable prefix (tools, then system prompt) and of the last two user
    turns: the last request wrote its cache entry at the earlier of the two.
    """
    leading = len(list(takewhile(lambda m: m.role is Role.SYSTEM, history.messages)))
    system = b",".join(history.wires[:leading])
    turns: list[tuple[bytes, list[bytes]]] = []
    for message, wire in zip(history.messages[leading:], history.wires[leading:], strict=True):
        role = b"assistant" if message.role is Role.ASSISTANT else b"user"
        if message.role is Role.SYSTEM:
            wire = _in_place(message)
        if turns and turns[-1][0] == role:
            turns[-1][1].append(wire)
        else:
            turns.append((role, [wire]))
    of_user = [blocks for role, blocks in turns if role == b"user"]
    for blocks in of_user[-2:]:
        blocks[-1] = marked(blocks[-1])
    messages = b",".join(
        b'{"role":"%s","content":[%s]}' % (role, b",".join(blocks)) for role, blocks in turns
    )
    return b"[%s]" % marked(system) if system else b"", b"[%s]" % messages


def marked(wire: bytes) -> bytes:
    """Add a cache mark to the last block."""
    return wire[:-1] + _MARK


def _in_place(message: Message) -> bytes:
    return dumps({"type": "text", "text": f"<system>\n{message.text}\n</system>"})


def tools_wire(tools: Sequence[ToolDefinition]) -> bytes:
    """Encode the offered tools."""
    return dumps(
        [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters),
            }
            for tool in tools
        ]
    )
