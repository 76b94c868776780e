"""OpenAI Chat Completions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tests.wires.parts import alternatives_in, calls_of, pieces

if TYPE_CHECKING:
    from tests.server import Reply

_ids = itertools.count(1)


def check(body: Mapping[str, Any]) -> list[str]:
    """List what the service would reject with status 400."""
    faults: list[str] = []
    if not isinstance(body.get("model"), str) or not body["model"]:
        faults.append("model is missing")
    if "tools" in body and not body["tools"]:
        faults.append("tools is an empty list")
    functions = [tool["function"] for tool in body.get("tools", ())]
    faults += alternatives_in(functions, "parameters")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*faults, "messages is missing or empty"]
    pending: set[str] = set()
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", message.get("role")
        if role not in ("system", "developer", "user", "assistant", "tool"):
            faults.append(f"{where}: role {role!r}")
        if not isinstance(message.get("content"), str | list):
            faults.append(f"{where}: content is {message.get('content')!r}")
        if role == "tool":
            if message.get("tool_call_id") not in pending:
                faults.append(f"{where}: no call {message.get('tool_call_id')!r} before it")
            pending.discard(message.get("tool_call_id"))
            content = message.get("content")
            if isinstance(content, list) and any(part["type"] != "text" for part in content):
                faults.append(f"{where}: a tool's message holds only text")
            continue
        if pending:
            faults.append(f"{where}: calls without results: {sorted(pending)}")
        calls = message.get("tool_calls")
        if calls is not None and (role != "assistant" or not calls):
            faults.append(f"{where}: tool_calls is {calls!r}")
        ids = [call.get("id") for call in calls or ()]
        if len(set(ids)) != len(ids) or not all(ids):
            faults.append(f"{where}: call ids {ids!r}")
        for call in calls or ():
            if call.get("type") != "function" or not call["function"].get("name"):
                faults.append(f"{where}: call {call!r}")
            if not isinstance(call["function"].get("arguments"), str):
                faults.append(f"{where}: arguments {call['function'].get('arguments')!r}")
        pending = set(ids)
    if pending:
        faults.append(f"calls without results at the end: {sorted(pending)}")
    return faults


def _finish(reply: Reply) -> str | None:
    if reply.finish is not None:
        return reply.finish or None
    return "tool_calls" if reply.calls else "stop"


def _usage(reply: Reply) -> Mapping[str, Any] | None:
    if reply.usage is None:
        return None
    usage = reply.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def whole(reply: Reply, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer as one JSON body."""
    number = next(_ids)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text or None,
        "refusal": None,
    }
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for id, name, arguments in calls_of(reply, f"call_{number}_")
        ]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _finish(reply),
        "logprobs": None,
    }
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": request["model"],
        "choices": [choice],
        "usage": _usage(reply),
    }


def events(reply: Reply, request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The answer as chunks."""
    number = next(_ids)
    head = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": request["model"],
    }

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> tuple[str, dict[str, Any]]:
        return "", {
            **head,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(reply.thinking, reply.piece):
        yield chunk({"reasoning_content": piece})
    for piece in pieces(reply.text, reply.piece):
        yield chunk({"content": piece})
    per_call = [
        list(_call_deltas(reply, index, *call))
        for index, call in enumerate(calls_of(reply, f"call_{number}_"))
    ]
    if reply.one_by_one:
        deltas = list(itertools.chain.from_iterable(per_call))
    else:
        deltas = [d for group in itertools.zip_longest(*per_call) for d in group if d is not None]
    for delta in deltas:
        yield chunk({"tool_calls": [delta]})
    if reply.error_event is not None:
        yield "", {"error": reply.error_event}
        return
    if finish := _finish(reply):
        yield chunk({}, finish)
    usage = _usage(reply)
    if usage is not None and (request.get("stream_options") or {}).get("include_usage"):
        yield "", {**head, "choices": [], "usage": usage}


def _call_deltas(
    reply: Reply, index: int, id: str, name: str, arguments: str
) -> Iterator[dict[str, Any]]:
    place = {} if reply.omit_index else {"index": index}
    first = {**place, "type": "function", "function": {"name": name, "arguments": ""}}
    yield {**first, "id": id} if id else first
    for piece in pieces(arguments, reply.piece):
        yield {**place, "function": {"arguments": piece}}


def error(reply: Reply) -> bytes:
    """The body of an error status."""
    kind = "insufficient_quota" if reply.code == "insufficient_quota" else "scripted_error"
    body = {"message": reply.message, "type": kind, "param": None, "code": reply.code}
    return json.dumps({"error": body}).encode()
