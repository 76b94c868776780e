"""Encodes messages as items of OpenAI's Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentcli.llm.openai_request import data_url
from agentcli.llm.wire_cache import dumps
from agentcli.llm.wire_calls import argument_text, safe_name
from agentcli.messages import Image, Message, Part, Role, Text, Thinking, ToolCall, ToolDefinition


def message_wire(message: Message) -> bytes:
    """The items of one message, joined by commas."""
    return b",".join(map(dumps, _items(message)))


def _items(message: Message) -> list[dict[str, Any]]:
    match message.role:
        case Role.TOOL:
            result = message.result
            item = {"type": "function_call_output", "call_id": result.call_id}
            parts: tuple[Part, ...] = (Text(result.content), *result.images)
            return [{**item, "output": _parts(parts) if result.images else result.content}]
        case Role.ASSISTANT:
            items = [item for part in message.parts for item in _said(part)]
            # The API rejects reasoning without an item after it.
            while items and items[-1]["type"] == "reasoning":
                items.pop()
            return items or [_message("assistant", "")]
        case Role.USER if any(isinstance(part, Image) for part in message.parts):
            return [_message("user", _parts(message.parts))]
        case role:
            return [_message(role.value, message.text)]


def _said(part: object) -> list[dict[str, Any]]:
    match part:
        case Text(text) if text:
            return [_message("assistant", text)]
        case Thinking(data=data) if data.startswith("{"):
            item: dict[str, Any] = json.loads(data)
            return [item] if item.get("type") == "reasoning" else []  # another API's data
        case ToolCall(id, name, arguments):
            item = {"type": "function_call", "call_id": id, "name": safe_name(name)}
            return [{**item, "arguments": argument_text(arguments)}]
    return []


def _message(role: str, content: str | list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _parts(of: Iterable[Part]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in of:
        if isinstance(part, Image):
            parts.append({"type": "input_image", "image_url": data_url(part), "detail": "auto"})
        elif isinstance(part, Text) and part.text:
            parts.append({"type": "input_text", "text": part.text})
    return parts


def tools_wire(tools: Sequence[ToolDefinition]) -> bytes:
    """Encode the offered tools."""
    return dumps(
        [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": False,
            }
            for tool in tools
        ]
    )
