"""vLLM's server over HTTP: its streams, its errors, and the requests it accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcli.errors import BadRequestError, ContextWindowError
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import FinishReason, Thinking, ToolDefinition, Usage, user
from tests.server import Reply, ScriptedServer

MODEL = "Qwen/Qwen3-Coder-30B-A3B-Instruct"
READ = ToolDefinition(
    "read_file",
    "Read a file.",
    {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """An event of vLLM's chat endpoint; without a delta, the final one with the usage."""
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish,
        "token_ids": None,
        **({"stop_reason": None} if finish else {}),
    }
    event = {
        "id": "chatcmpl-4f1c",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": MODEL,
        "choices": [] if delta is None else [choice],
        **more,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def called(**function: str) -> dict[str, Any]:
    head = {"id": "chatcmpl-tool-9a", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{**head, "index": 0, "function": function}]}


def stream(*deltas: dict[str, Any], finish: str, reasoning: str) -> bytes:
    usage = {"prompt_tokens": 211, "total_tokens": 240, "completion_tokens": 29}
    return b"".join(
        [
            chunk({"role": "assistant", "content": ""}, prompt_token_ids=None),
            *(chunk({reasoning: part}) for part in ("I look ", "first.")),
            *map(chunk, deltas),
            chunk({"content": ""}, finish),
            chunk(None, usage={**usage, "prompt_tokens_details": None}),
            b"data: [DONE]\n\n",
        ]
    )


def client_of(server: ScriptedServer, window: int | None = None) -> OpenAIChat:
    info = ModelInfo(MODEL, "vllm", context_window=window)
    return OpenAIChat(info, "", server.url, reasoning_field="reasoning_content")


@pytest.mark.parametrize("reasoning", ["reasoning", "reasoning_content"])  # new, old
async def test_a_thought_and_a_call_in_pieces(reasoning: str) -> None:
    body = stream(
        called(name="read_file"),
        called(arguments='{"path": '),
        called(arguments='"a.py"}'),
        finish="tool_calls",
        reasoning=reasoning,
    )
    reply = Reply(body=body, content_type="text/event-stream; charset=utf-8", split=7)
    async with ScriptedServer([reply]) as server:
        client = client_of(server)
        response = await chat(client, ChatRequest((user("read it"),), (READ,)))
        await client.aclose()
        sent = server.requests[0].json
    message = response.message
    assert [(call.name, call.arguments) for call in message.calls] == [
        ("read_file", '{"path": "a.py"}')
    ]
    assert [part.text for part in message.parts if isinstance(part, Thinking)] == ["I look first."]
    assert response.finish_reason is FinishReason.TOOL_CALLS
    assert response.usage == Usage(input_tokens=211, output_tokens=29)
    assert sent["model"] == MODEL
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
    assert sent["tools"][0]["function"]["parameters"]["required"] == ["path"]
    assert not {"strict", "store", "prompt_cache_key"} & set(sent)


FLAT = {
    "object": "error",
    "message": "This model's maximum context length is 8 tokens.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
NESTED = {"error": {key: FLAT[key] for key in ("message", "type", "param", "code")}}


@pytest.mark.parametrize("body", [FLAT, NESTED], ids=["older", "newer"])
async def test_a_refusal_is_told_by_the_window_not_by_its_words(body: dict[str, Any]) -> None:
    reply = Reply(status=400, body=json.dumps(body).encode(), content_type="application/json")
    request = ChatRequest((user("word " * 200),))
    for window, kind in ((8, ContextWindowError), (100_000, BadRequestError)):
        async with ScriptedServer([reply]) as server:
            client = client_of(server, window)
            with pytest.raises(kind) as told:
                await chat(client, request)
            await client.aclose()
        assert "maximum context length is 8 tokens" in str(told.value)
