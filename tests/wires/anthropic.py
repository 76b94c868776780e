"""Anthropic Messages."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tests.wires.parts import alternatives_in, calls_of, pieces

if TYPE_CHECKING:
    from tests.server import Reply

_ids = itertools.count(1)
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def check(body: Mapping[str, Any]) -> list[str]:
    """List what the service would reject with status 400."""
    faults: list[str] = []
    if not body.get("model"):
        faults.append("model is missing")
    if not isinstance(body.get("max_tokens"), int):
        faults.append("max_tokens is missing")
    tools = body.get("tools", ())
    faults += alternatives_in(tools, "input_schema")
    names = [name for tool in tools for name in tool["input_schema"].get("properties", ())]
    faults += [f"argument {name}" for name in names if not _NAME.fullmatch(name)]
    marks = json.dumps(body).count('"cache_control"')
    if marks > 4:
        faults.append(f"{marks} cache_control blocks, at most 4 are allowed")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*faults, "messages is missing or empty"]
    if messages[0].get("role") != "user":
        faults.append("the first message is not the user's")
    pending: set[Any] = set()
    for index, message in enumerate(messages):
        where, role, content = (
            f"messages[{index}]",
            message.get("role"),
            message.get("content"),
        )
        if role not in ("user", "assistant"):
            faults.append(f"{where}: role {role!r}")
        if not content:
            faults.append(f"{where}: content is {content!r}")
            continue
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        results = [block for block in blocks if block["type"] == "tool_result"]
        if blocks[: len(results)] != results:
            faults.append(f"{where}: tool results must come first")
        given = {block.get("tool_use_id") for block in results}
        if given != pending:
            faults.append(f"{where}: results {sorted(map(str, given))} for calls {sorted(pending)}")
        pending = {block.get("id") for block in blocks if block["type"] == "tool_use"}
        for block in blocks:
            if block["type"] == "text" and not block["text"].strip():
                faults.append(f"{where}: text block without text")
            inner = block.get("content")
            kinds = {part["type"] for part in inner} if isinstance(inner, list) else set()
            if block.get("is_error") and kinds - {"text"}:
                faults.append(f"{where}: all content must be text if is_error is true")
            if block["type"] == "tool_use" and not isinstance(block.get("input"), dict):
                faults.append(f"{where}: input {block.get('input')!r}")
            if block["type"] == "thinking" and not block.get("signature"):
                faults.append(f"{where}: thinking without its signature")
    if pending:
        faults.append(f"calls without results at the end: {sorted(pending)}")
    return faults


def _stop_reason(reply: Reply) -> str | None:
    if reply.finish is not None:
        return reply.finish or None
    return "tool_use" if reply.calls else "end_turn"


def _usage(reply: Reply) -> dict[str, Any]:
    if reply.usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    usage = reply.usage
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _message(reply: Reply, request: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(reply), "output_tokens": 1},
    }


def whole(reply: Reply, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer as one JSON body."""
    number = next(_ids)
    content: list[dict[str, Any]] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": reply.thinking, "signature": "sig=="})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    for id, name, arguments in calls_of(reply, f"toolu_{number}_"):
        content.append({"type": "tool_use", "id": id, "name": name, "input": _input(arguments)})
    return {
        **_message(reply, request, number),
        "content": content,
        "stop_reason": _stop_reason(reply),
        "usage": _usage(reply),
    }


def _input(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def events(reply: Reply, request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The answer as server-sent events."""
    for event in _events(reply, request):
        yield event["type"], event


def _events(reply: Reply, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    number = next(_ids)
    yield {"type": "message_start", "message": _message(reply, request, number)}
    yield {"type": "ping"}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if reply.thinking:
        deltas = [
            {"type": "thinking_delta", "thinking": p} for p in pieces(reply.thinking, reply.piece)
        ]
        deltas.append({"type": "signature_delta", "signature": "sig=="})
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
    if reply.text:
        deltas = [{"type": "text_delta", "text": p} for p in pieces(reply.text, reply.piece)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    for id, name, arguments in calls_of(reply, f"toolu_{number}_"):
        deltas = [
            {"type": "input_json_delta", "partial_json": p}
            for p in ["", *pieces(arguments, reply.piece)]
        ]
        blocks.append(({"type": "tool_use", "id": id, "name": name, "input": {}}, deltas))
    for index, (block, deltas) in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        # The service does not close a block that was cut off by the token limit.
        if index < len(blocks) - 1 or reply.finish != "max_tokens" or block["type"] != "tool_use":
            yield {"type": "content_block_stop", "index": index}
    if reply.error_event is not None:
        yield {"type": "error", "error": reply.error_event}
        return
    if stop := _stop_reason(reply):
        end: dict[str, Any] = {"stop_reason": stop, "stop_sequence": None}
        yield {"type": "message_delta", "delta": end, "usage": _usage(reply)}
    if reply.done:
        yield {"type": "message_stop"}


def error(reply: Reply) -> bytes:
    """The body of an error status."""
    kind = reply.code or _TYPES.get(reply.status, "api_error")
    body = {
        "type": "error",
        "error": {"type": kind, "message": reply.message},
        "request_id": "r",
    }
    return json.dumps(body).encode()
