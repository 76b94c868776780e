"""Encodes messages for Chat Completions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentcli.llm.client import Sampling
from agentcli.llm.wire_cache import dumps
from agentcli.llm.wire_calls import argument_text, safe_name
from agentcli.messages import (
    ASIDE,
    Image,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolResult,
)

_STRICT = re.compile("(mis|minis|magis|devs|codes|pix)tral")
"""Models whose servers refuse a user's message right after a tool's."""


def message_wire(message: Message, provider: str, reasoning_field: str = "") -> dict[str, Any]:
    """Encode one message. Its content is never null.

    ``reasoning_field`` is the field in which this provider expects its reasoning back.
    """
    match message.role:
        case Role.TOOL:
            result = message.result
            return {"role": "tool", "tool_call_id": result.call_id, "content": result.content}
        case Role.ASSISTANT:
            return _said(message, provider, reasoning_field)
        case Role.USER if any(isinstance(part, Image) for part in message.parts):
            return {"role": "user", "content": _parts(message.parts)}
        case role:
            return {"role": role.value, "content": message.text}


def images_wire(results: Iterable[ToolResult], model: str) -> list[dict[str, Any]]:
    """The messages with the images of an answer's results; none if they have no images.

    The API allows only text in a tool's message, so that they follow in one of the user's role.
    """
    parts: list[Part] = []
    for result in results:
        if result.images:
            what = "this image" if len(result.images) == 1 else "these images"
            name = f"{safe_name(result.name)} (call {result.call_id})"
            parts += [Text(f"{ASIDE} {name} returned {what}:"), *result.images]
    if not parts:
        return []
    between = [{"role": "assistant", "content": "(waiting for the images)"}]
    shown = {"role": "user", "content": _parts(parts)}
    return [*between, shown] if _STRICT.search(model) else [shown]


def sealed(provider: str, **fields: Any) -> str:
    """Opaque fields that a provider expects back, as ``Thinking.data``."""
    return dumps({"provider": provider, **fields}).decode()


def _unsealed(part: Thinking, provider: str) -> Mapping[str, Any]:
    """The fields if this provider sent them; another provider would reject them."""
    if not part.data.startswith("{"):
        return {}
    fields: dict[str, Any] = json.loads(part.data)
    return fields if fields.get("provider") == provider else {}


def _said(message: Message, provider: str, reasoning_field: str) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant", "content": message.text}
    if reasoning_field and message.thinking:
        wire[reasoning_field] = message.thinking
    calls: list[dict[str, Any]] = []
    of_next_call: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, Thinking):
            fields = _unsealed(part, provider)
            if "reasoning_details" in fields:
                wire["reasoning_details"] = fields["reasoning_details"]
            if "extra_content" in fields:
                of_next_call = {"extra_content": fields["extra_content"]}
        elif isinstance(part, ToolCall):
            arguments = argument_text(part.arguments)
            function = {"name": safe_name(part.name), "arguments": arguments}
            calls.append({"id": part.id, "type": "function", "function": function, **of_next_call})
            of_next_call = {}
    if calls:
        wire["tool_calls"] = calls
    return wire


def data_url(image: Image) -> str:
    """The image as a ``data:`` URL."""
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def _parts(of: Iterable[Part]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in of:
        if isinstance(part, Image):
            parts.append({"type": "image_url", "image_url": {"url": data_url(part)}})
        elif isinstance(part, Text) and part.text:
            parts.append({"type": "text", "text": part.text})
    return parts


def tools_wire(tools: Sequence[ToolDefinition]) -> bytes:
    """Encode the offered tools."""
    return dumps(
        [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in tools
        ]
    )


def sampling_wire(sampling: Sampling, max_tokens_field: str) -> dict[str, Any]:
    """The options that are set; the model's defaults apply to the others."""
    asked: dict[str, Any] = {
        max_tokens_field: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    return {name: value for name, value in asked.items() if value is not None}
