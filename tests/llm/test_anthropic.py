"""Behaviour specific to the Anthropic Messages API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.messages import (
    FinishReason,
    Message,
    Outcome,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
    assistant,
    system,
    tool,
    user,
)
from tests.server import Reply, ScriptedServer

INFO = ModelInfo("claude-test", "anthropic", context_window=200_000)
READ = ToolDefinition("read_file", "Read a file.", {"type": "object", "properties": {}})
CALLED = assistant("Look.", ToolCall("c1", "read_file", "{}"), ToolCall("c2", "read_file", "{"))
RESULTS = (
    tool(ToolResult("c1", "read_file", "text")),
    tool(ToolResult("c2", "read_file", "", Outcome.ERROR)),
)


async def sent(*messages: Message, tools: tuple[ToolDefinition, ...] = (READ,)) -> dict[str, Any]:
    async with ScriptedServer([Reply(text="ok")]) as server:
        client = AnthropicMessages(INFO, "sk-ant", server.root)
        await chat(client, ChatRequest(messages, tools))
        await client.aclose()
        assert server.faults == []
        assert server.requests[0].path == "/v1/messages"
        assert server.requests[0].headers["authorization"] == "Bearer sk-ant"
        assert server.requests[0].headers["anthropic-version"]
        body: dict[str, Any] = server.requests[0].json
        return body


def marks(value: Any) -> int:
    return json.dumps(value).count("cache_control")


async def test_cache_marks() -> None:
    body = await sent(system("one"), system("two"), user("go"), CALLED, *RESULTS)
    assert [block["text"] for block in body["system"]] == ["one", "two"]
    assert [marks(block) for block in body["system"]] == [0, 1]
    assert [marks(message) for message in body["messages"]] == [1, 0, 1]
    assert [marks(block) for block in body["messages"][2]["content"]] == [0, 1]
    assert marks(body) == 3 and marks(body["tools"]) == 0


async def test_tools_are_the_prefix_without_a_system_prompt() -> None:
    body = await sent(user("go"))
    assert "system" not in body and marks(body["tools"]) == 1
    assert marks(await sent(user("go"), tools=())) == 1


async def test_results_are_one_turn_and_later_system_messages_keep_their_place() -> None:
    body = await sent(system("s"), user("go"), CALLED, *RESULTS, system("note"), user("on"))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    kinds = [block["type"] for block in body["messages"][2]["content"]]
    assert kinds == ["tool_result", "tool_result", "text", "text"]
    first, second, note, _ = body["messages"][2]["content"]
    assert first["content"] == "text" and "is_error" not in first
    assert "content" not in second and second["is_error"] is True
    assert note["text"] == "<system>\nnote\n</system>"
    assert body["messages"][1]["content"][2]["input"] == {"INVALID_JSON": "{"}


async def test_thinking_goes_back_with_its_signature() -> None:
    said = Message(
        Role.ASSISTANT,
        (
            Thinking("of another provider"),
            Thinking("", data='{"type": "reasoning"}'),
            Thinking("hm", "sig"),
            Thinking("", data="sealed"),
            Text("yes"),
        ),
    )
    body = await sent(user("a"), said, user("b"))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "sealed"},
        {"type": "text", "text": "yes"},
    ]


@pytest.mark.parametrize("streaming", [True, False])
async def test_thinking_and_usage(streaming: bool) -> None:
    usage = Usage(1000, 700, 200, 50, 30)
    reply = Reply(thinking="hm", text="yes", usage=usage)
    async with ScriptedServer([reply]) as server:
        client = AnthropicMessages(INFO, "k", server.root, streaming=streaming)
        response = await chat(client, ChatRequest((user("x"),)))
        await client.aclose()
    assert response.message.parts == (Thinking("hm", "sig=="), Text("yes"))
    assert response.usage == usage and usage.fresh_tokens == 300


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


START = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
END = (
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"index": index}
    return [
        {"type": "content_block_start", **place, "content_block": content},
        *({"type": "content_block_delta", **place, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", **place},
    ]


async def test_blocks_of_every_kind() -> None:
    body = stream(
        START,
        {"type": "ping"},
        *block(0, {"type": "redacted_thinking", "data": "sealed"}),
        *block(
            1, {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": "s"}
        ),
        *block(2, {"type": "text", "text": "at once"}),
        *block(3, {"type": "server_tool_use", "id": "x", "name": "web"}),
        *block(4, {"type": "tool_use", "id": "t1", "name": "a", "input": {"x": 1}}),
        {"type": "something_new"},
        *END,
    )
    async with ScriptedServer([Reply(body=body)]) as server:
        client = AnthropicMessages(INFO, "k", server.root)
        response = await chat(client, ChatRequest((user("x"),)))
        await client.aclose()
    assert response.message.parts == (
        Thinking("", "", "sealed"),
        Thinking("", "s"),
        Text("at once"),
        ToolCall("t1", "a", '{"x": 1}'),
    )
    assert response.finish_reason is FinishReason.TOOL_CALLS
    assert response.usage == Usage(input_tokens=3, output_tokens=9)


async def test_blocks_under_one_index() -> None:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {}}]
    for name in ("a", "b"):
        block = {"type": "tool_use", "id": name, "name": name}
        delta = {"type": "input_json_delta", "partial_json": f'{{"x":"{name}"}}'}
        events += [
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
        ]
    events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}})
    whole = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    async with ScriptedServer([Reply(body=whole, stream=True)]) as server:
        client = AnthropicMessages(INFO, "k", server.root)
        response = await chat(client, ChatRequest((user("x"),), (READ,)))
        await client.aclose()
    calls = [(call.name, call.arguments) for call in response.message.calls]
    assert calls == [("a", '{"x":"a"}'), ("b", '{"x":"b"}')]


async def test_base_url_with_or_without_version() -> None:
    async with ScriptedServer([Reply(text="a"), Reply(text="b")]) as server:
        for url in (server.root, server.url):
            client = AnthropicMessages(INFO, "k", url)
            await chat(client, ChatRequest((user("x"),)))
            await client.aclose()
        assert [request.path for request in server.requests] == ["/v1/messages"] * 2
