"""Behaviour specific to the OpenAI Responses API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcli import errors
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.messages import (
    Message,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolResult,
    assistant,
    system,
    tool,
    user,
)
from tests.server import Reply, ScriptedServer

INFO = ModelInfo("gpt-6-test", "openai")
READ = ToolDefinition("read_file", "Read a file.", {"type": "object", "properties": {}})


async def asked(
    *messages: Message, replies: tuple[Reply, ...] = (Reply(text="ok"),), model: ModelInfo = INFO
) -> dict[str, Any]:
    async with ScriptedServer(replies) as server:
        client = OpenAIResponses(model, "k", server.url)
        await chat(client, ChatRequest(messages, (READ,), conversation="c" * 99))
        await client.aclose()
        assert server.faults == []
        body: dict[str, Any] = server.requests[-1].json
        return body


async def test_request() -> None:
    call = ToolCall("c1", "read_file", "{")
    said = Message(Role.ASSISTANT, (Thinking("unsealed"), Text("Look."), call))
    body = await asked(system("s"), user("go"), said, tool(ToolResult("c1", "read_file", "")))
    assert body["input"] == [
        {"type": "message", "role": "system", "content": "s"},
        {"type": "message", "role": "user", "content": "go"},
        {"type": "message", "role": "assistant", "content": "Look."},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "read_file",
            "arguments": '{"INVALID_JSON":"{"}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": ""},
    ]
    assert body["store"] is False and body["include"] == ["reasoning.encrypted_content"]
    assert body["prompt_cache_key"] == "c" * 64
    assert body["tools"][0]["name"] == "read_file"


async def test_other_models_are_not_asked_for_reasoning() -> None:
    assert "include" not in await asked(user("x"), model=ModelInfo("gpt-4.1", "openai"))


@pytest.mark.parametrize("streaming", [True, False])
async def test_reasoning_is_kept_and_sent_back(streaming: bool) -> None:
    replies = [Reply(thinking="because", calls=[("read_file", {})]), Reply(text="done")]
    async with ScriptedServer(replies) as server:
        client = OpenAIResponses(INFO, "k", server.url, streaming=streaming)
        first = await chat(client, ChatRequest((user("x"),), (READ,)))
        thought = first.message.parts[0]
        assert isinstance(thought, Thinking) and thought.text == "because"
        result = tool(ToolResult(first.message.calls[0].id, "read_file", "text"))
        await chat(client, ChatRequest((user("x"), first.message, result), (READ,)))
        await client.aclose()
        assert server.faults == []
        item = server.requests[1].json["input"][1]
    assert item == json.loads(thought.data)
    assert item["type"] == "reasoning" and item["encrypted_content"].startswith("sealed-")
    assert item["summary"] == [{"type": "summary_text", "text": "because"}]


async def test_reasoning_without_what_followed_is_left_out() -> None:
    sealed = json.dumps({"type": "reasoning", "id": "rs_1", "summary": []})
    said = Message(Role.ASSISTANT, (Text("a"), Thinking("", data=sealed)))
    body = await asked(user("x"), said, user("y"))
    assert [item["type"] for item in body["input"]] == ["message"] * 3


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


async def test_items_that_come_at_once() -> None:
    part = {"type": "output_text", "text": "hi"}
    refused = {"type": "refusal", "refusal": "no"}
    call = {"type": "function_call", "call_id": "c", "name": "a", "arguments": '{"x":1}'}
    items = [{"type": "message", "content": [part, refused]}, call]
    events = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(items)
    ]
    body = stream(*events, {"type": "response.completed", "response": {"status": "completed"}})
    async with ScriptedServer([Reply(body=body)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        response = await chat(client, ChatRequest((user("x"),)))
        await client.aclose()
    assert response.message == assistant("hino", ToolCall("c", "a", '{"x":1}'))


async def test_calls_under_one_index() -> None:
    whole = b""
    for name in ("a", "b"):
        item = {"type": "function_call", "call_id": name, "name": name, "arguments": ""}
        for event in (
            {"type": "response.output_item.added", "item": item},
            {"type": "response.function_call_arguments.delta", "delta": f'{{"x":"{name}"}}'},
            {"type": "response.output_item.done", "item": item},
        ):
            whole += b"data: " + json.dumps(event).encode() + b"\n\n"
    whole += b'data: {"type": "response.completed", "response": {"status": "completed"}}'
    async with ScriptedServer([Reply(body=whole, stream=True)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        response = await chat(client, ChatRequest((user("x"),), (READ,)))
        await client.aclose()
    calls = [(call.name, call.arguments) for call in response.message.calls]
    assert calls == [("a", '{"x":"a"}'), ("b", '{"x":"b"}')]


async def test_a_message_that_ends_under_the_index_of_a_later_call() -> None:
    """As from ``transformers serve``, which ends the message after the calls."""
    text = {"type": "output_text", "text": "I read.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    call = {"type": "function_call", "id": "t0", "call_id": "t0", "name": "a", "arguments": "{}"}
    said = {"item_id": "msg_1", "content_index": 0}
    body = stream(
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "I read.", **said},
        {"type": "response.output_item.added", "output_index": 1, "item": call},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.output_text.done", "output_index": 1, "text": "I read.", **said},
        {"type": "response.content_part.done", "output_index": 1, "part": text, **said},
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {**message, "content": [text]},
        },
        {"type": "response.completed", "response": {"status": "completed"}},
    )
    async with ScriptedServer([Reply(body=body)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        response = await chat(client, ChatRequest((user("x"),), (READ,)))
        await client.aclose()
    assert response.message == assistant("I read.", ToolCall("t0", "a", "{}"))


async def test_items_without_indexes_that_end_together() -> None:
    """As from llama.cpp's server."""
    added, done = "response.output_item.added", "response.output_item.done"
    written = {"type": "response.function_call_arguments.delta"}
    part = {"type": "output_text", "text": "I read."}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    calls = [
        {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": "a"}
        for n in (1, 2)
    ]
    body = stream(
        {"type": added, "item": message},
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "I read."},
        {"type": added, "item": {**calls[0], "arguments": "", "status": "in_progress"}},
        {**written, "item_id": "fc_1", "delta": '{"x":'},
        {**written, "item_id": "fc_1", "delta": "1}"},
        {"type": added, "item": {**calls[1], "arguments": "", "status": "in_progress"}},
        {**written, "item_id": "fc_2", "delta": '{"x":2}'},
        {"type": "response.output_text.done", "item_id": "msg_1", "text": "I read."},
        {"type": done, "item": {**message, "content": [part], "status": "completed"}},
        {"type": done, "item": {**calls[0], "arguments": '{"x":1}', "status": "completed"}},
        {"type": done, "item": {**calls[1], "arguments": '{"x":2}', "status": "completed"}},
        {"type": "response.completed", "response": {"status": "completed"}},
    )
    async with ScriptedServer([Reply(body=body)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        response = await chat(client, ChatRequest((user("x"),), (READ,)))
        await client.aclose()
    one, two = ToolCall("call_1", "a", '{"x":1}'), ToolCall("call_2", "a", '{"x":2}')
    assert response.message == assistant("I read.", one, two)
    assert response.cut_calls == 0


async def test_summaries_in_parts() -> None:
    place = {"output_index": 0}
    delta = {"type": "response.reasoning_summary_text.delta", **place}
    body = stream(
        {"type": "response.reasoning_summary_part.added", **place},
        {**delta, "delta": "one"},
        {"type": "response.reasoning_summary_part.added", **place},
        {**delta, "delta": "two"},
        {"type": "response.completed", "response": {}},
    )
    async with ScriptedServer([Reply(body=body)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        response = await chat(client, ChatRequest((user("x"),)))
        await client.aclose()
    assert response.message.parts == (Thinking("one\n\ntwo"),)


@pytest.mark.parametrize("whole", [True, False])
async def test_failed_responses(whole: bool) -> None:
    failed = {
        "status": "failed",
        "output": [],
        "error": {"code": "rate_limit_exceeded", "message": "slow down"},
    }
    body = json.dumps(failed).encode()
    if not whole:
        body = stream({"type": "response.failed", "response": failed})
    async with ScriptedServer([Reply(body=body, stream=not whole)]) as server:
        client = OpenAIResponses(INFO, "k", server.url)
        with pytest.raises(errors.RateLimitError, match="slow down"):
            await chat(client, ChatRequest((user("x"),)))
        await client.aclose()
