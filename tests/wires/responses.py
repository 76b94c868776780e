"""OpenAI Responses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tests.wires.parts import alternatives_in, calls_of, pieces

if TYPE_CHECKING:
    from tests.server import Reply

_ids = itertools.count(1)


def check(body: Mapping[str, Any]) -> list[str]:
    """List what the service would reject with status 400."""
    faults: list[str] = []
    if not body.get("model"):
        faults.append("model is missing")
    faults += alternatives_in(body.get("tools", ()), "parameters")
    items = body.get("input")
    if not isinstance(items, list) or not items:
        return [*faults, "input is missing or empty"]
    calls: set[str] = set()
    done: set[str] = set()
    for index, item in enumerate(items):
        where, kind = f"input[{index}]", item.get("type", "message")
        if kind == "message" and not isinstance(item.get("content"), str | list):
            faults.append(f"{where}: content is {item.get('content')!r}")
        elif kind == "function_call":
            if not item.get("call_id") or item["call_id"] in calls:
                faults.append(f"{where}: call_id {item.get('call_id')!r}")
            if not isinstance(item.get("arguments"), str) or not item.get("name"):
                faults.append(f"{where}: {item!r}")
            calls.add(item.get("call_id"))
        elif kind == "function_call_output":
            if item.get("call_id") not in calls:
                faults.append(f"{where}: no call {item.get('call_id')!r} before it")
            if not isinstance(item.get("output"), str | list):
                faults.append(f"{where}: output is {item.get('output')!r}")
            done.add(item.get("call_id"))
        elif kind == "reasoning":
            if not item.get("id") or not isinstance(item.get("summary"), list):
                faults.append(f"{where}: {item!r}")
            after = items[index + 1] if index + 1 < len(items) else {}
            if after.get("role") != "assistant" and after.get("type") not in (
                "function_call",
                "reasoning",
            ):
                faults.append(f"{where}: reasoning without the item that followed it")
    if calls - done:
        faults.append(f"calls without results: {sorted(calls - done)}")
    return faults


def _usage(reply: Reply) -> Mapping[str, Any] | None:
    if reply.usage is None:
        return None
    usage = reply.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _items(reply: Reply, number: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        items.append(
            {
                "type": "reasoning",
                "id": f"rs_{number}",
                "summary": summary,
                "encrypted_content": f"sealed-{number}",
            }
        )
    if reply.text:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        items.append(
            {
                "type": "message",
                "id": f"msg_{number}",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        )
    for index, (id, name, arguments) in enumerate(calls_of(reply, f"call_{number}_")):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{number}_{index}",
                "call_id": id,
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
        )
    if reply.finish not in (None, "completed") and items:
        items[-1]["status"] = "incomplete"
    return items


def _response(
    reply: Reply,
    request: Mapping[str, Any],
    number: int,
    items: list[dict[str, Any]],
    status: str,
) -> dict[str, Any]:
    reason = {"reason": reply.finish} if status == "incomplete" else None
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "model": request["model"],
        "status": status,
        "error": None,
        "incomplete_details": reason,
        "output": items,
        "usage": _usage(reply) if status != "in_progress" else None,
    }


def _status(reply: Reply) -> str:
    return "completed" if reply.finish in (None, "completed") else "incomplete"


def whole(reply: Reply, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer as one JSON body. ``finish``, if given, is why the answer is incomplete."""
    number = next(_ids)
    return _response(reply, request, number, _items(reply, number), _status(reply))


def events(reply: Reply, request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The answer as server-sent events."""
    for number, event in enumerate(_events(reply, request)):
        yield event["type"], {**event, "sequence_number": number}


def _events(reply: Reply, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    number = next(_ids)
    items = _items(reply, number)
    start = _response(reply, request, number, [], "in_progress")
    yield {"type": "response.created", "response": start}
    yield {"type": "response.in_progress", "response": start}
    for index, item in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        yield from _item_events(reply, item, index, place)
    if reply.error_event is not None:
        yield {"type": "error", **reply.error_event}
        return
    if reply.finish != "" and reply.done:
        status = _status(reply)
        final = _response(reply, request, number, items, status)
        yield {"type": f"response.{status}", "response": final}


def _item_events(
    reply: Reply, item: dict[str, Any], index: int, place: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if item["type"] == "reasoning":
        empty = {**item, "summary": [], "encrypted_content": ""}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": empty,
        }
        for piece in pieces(reply.thinking, reply.piece):
            delta = {"summary_index": 0, "delta": piece}
            yield {"type": "response.reasoning_summary_text.delta", **place, **delta}
    elif item["type"] == "message":
        empty = {**item, "content": [], "status": "in_progress"}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": empty,
        }
        for piece in pieces(reply.text, reply.piece):
            delta = {"content_index": 0, "delta": piece, "logprobs": []}
            yield {"type": "response.output_text.delta", **place, **delta}
    else:
        empty = {**item, "arguments": "", "status": "in_progress"}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": empty,
        }
        for piece in pieces(item["arguments"], reply.piece):
            yield {
                "type": "response.function_call_arguments.delta",
                **place,
                "delta": piece,
            }
        if item["status"] == "completed":
            end = {"arguments": item["arguments"], "name": item["name"]}
            yield {"type": "response.function_call_arguments.done", **place, **end}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}
