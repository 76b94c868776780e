"""Behaviour common to all wires, over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import itertools
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from agentcli import errors
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ChatResponse, ModelInfo, Sampling, chat
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.llm.remote import RemoteModel
from agentcli.messages import (
    FinishReason,
    Image,
    Message,
    Outcome,
    Part,
    Role,
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
from tests.wires import wire_of

Make: TypeAlias = Callable[..., RemoteModel]

CLIENTS: dict[str, Make] = {
    "chat": OpenAIChat,
    "responses": OpenAIResponses,
    "messages": AnthropicMessages,
}
PATHS = {"chat": "/chat/completions", "responses": "/responses", "messages": "/v1/messages"}
LENGTH = {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens"}
FILTER = {"chat": "content_filter", "responses": "content_filter", "messages": "refusal"}
INFO = ModelInfo("gpt-6-test", "test", context_window=100_000)
READ = ToolDefinition("read_file", "Read a file.", {"type": "object", "properties": {}})
every_wire = pytest.mark.parametrize("wire", CLIENTS)


def client_for(wire: str, server: ScriptedServer, **options: Any) -> RemoteModel:
    return CLIENTS[wire](INFO, "sk-secret", server.url, key_name="THE_KEY", **options)


def ask(*messages: Message) -> ChatRequest:
    return ChatRequest(messages or (user("hello"),), (READ,))


async def answer(
    wire: str, reply: Reply, request: ChatRequest | None = None, **options: Any
) -> ChatResponse:
    async with ScriptedServer([reply]) as server:
        client = client_for(wire, server, **options)
        try:
            return await chat(client, request or ask())
        finally:
            await client.aclose()
            assert server.faults == []


def plain(response: ChatResponse) -> ChatResponse:
    """The answer without the parts that differ from call to call."""
    parts: list[Part] = []
    for part in response.message.parts:
        if isinstance(part, ToolCall):
            arguments = json.dumps(json.loads(part.arguments))
            part = ToolCall("", part.name, arguments)
        elif isinstance(part, Thinking):
            part = dataclasses.replace(part, data="")
        parts.append(part)
    return dataclasses.replace(response, message=Message(Role.ASSISTANT, tuple(parts)))


def broken(reply: Reply, way: str, at: int) -> Reply:
    changes: dict[str, Any] = {way: at}
    return dataclasses.replace(reply, **changes)


@every_wire
async def test_text_and_usage(wire: str) -> None:
    usage = Usage(100, 60, 0, 20, 8)
    response = await answer(wire, Reply(text="Grüße 🎉", usage=usage))
    assert response.message == assistant("Grüße 🎉")
    assert (response.finish_reason, response.usage) == (FinishReason.STOP, usage)


@every_wire
async def test_thinking_text_and_parallel_calls(wire: str) -> None:
    calls = [("read_file", {"path": "ä.py"}), ("read_file", {"path": "b.py"})]
    response = await answer(wire, Reply(thinking="hm", text="Both.", calls=calls))
    assert (response.message.thinking, response.message.text) == ("hm", "Both.")
    assert [(c.name, json.loads(c.arguments)) for c in response.message.calls] == calls
    assert len({c.id for c in response.message.calls}) == 2
    assert response.finish_reason is FinishReason.TOOL_CALLS


CASES = {
    "text": Reply(text="hi"),
    "empty": Reply(),
    "all": Reply(thinking="hm", text="ok", calls=[("a", {"x": "é🎉"}), ("b", {})]),
    "duplicate ids": Reply(calls=[("a", {}), ("b", {})], call_ids=["x", "x"]),
    "no ids": Reply(calls=[("a", {}), ("b", {})], call_ids=["", ""]),
    "length": Reply(text="and so", finish="LENGTH"),
    "length in a call": Reply(text="x", calls=[("a", {}), ("b", {"k": "v"})], finish="LENGTH"),
    "filtered": Reply(text="I", finish="FILTER"),
}


@pytest.mark.parametrize("case", CASES)
@every_wire
async def test_streamed_and_whole_answers_fold_to_the_same(wire: str, case: str) -> None:
    words = {"LENGTH": LENGTH[wire], "FILTER": FILTER[wire]}
    finish = CASES[case].finish
    reply = dataclasses.replace(CASES[case], finish=words[finish] if finish else None)
    streamed = await answer(wire, reply)
    whole = await answer(wire, reply, streaming=False)
    unasked = await answer(wire, dataclasses.replace(reply, stream=False))
    assert plain(streamed) == plain(whole) == plain(unasked)
    ids = [call.id for call in streamed.message.calls]
    assert all(ids) and len(set(ids)) == len(ids)
    if finish == "LENGTH":
        assert streamed.finish_reason is FinishReason.LENGTH
        assert streamed.cut_calls == (1 if CASES[case].calls else 0)
    if finish == "FILTER":
        assert streamed.finish_reason is FinishReason.CONTENT_FILTER


@every_wire
async def test_split_at_byte_boundaries(wire: str) -> None:
    reply = Reply(thinking="ä", text="é🎉", calls=[("a", {"x": "ü"}), ("b", {})], piece=2)
    want = plain(await answer(wire, reply))
    found = wire_of(PATHS[wire])
    assert found is not None
    size = len(found.stream(reply, {"model": "m", "stream_options": {"include_usage": True}}))
    splits: list[int | tuple[int, ...]] = [1, 2, 7, *((at,) for at in range(1, size, 41))]
    async with ScriptedServer([dataclasses.replace(reply, split=split) for split in splits]) as s:
        client = client_for(wire, s)
        for _ in splits:
            assert plain(await chat(client, ask())) == want
        await client.aclose()


async def malformed(wire: str, raw: str) -> str:
    response = await answer(wire, Reply(calls=[("a", raw)]))
    # The service must accept a history with such a call.
    result = tool(ToolResult(response.message.calls[0].id, "a", "error: ...", Outcome.ERROR))
    await answer(wire, Reply(text="ok"), ask(user("x"), response.message, result))
    return response.message.calls[0].arguments


@pytest.mark.parametrize("raw", ['{"path": "a', "null", "[1]", "{} trailing", "plain"])
@every_wire
async def test_malformed_arguments(wire: str, raw: str) -> None:
    assert await malformed(wire, raw) == raw


@every_wire
async def test_no_arguments(wire: str) -> None:
    assert await malformed(wire, "") == "{}"


HISTORY = (
    system("Be brief."),
    system("Work in /x."),
    user("look", Image(b"\x89PNG", "image/png")),
    assistant("", ToolCall("functions.a:0", "a", "{}"), ToolCall("c2", "a", "{")),
    tool(ToolResult("functions.a:0", "a", "")),
    tool(ToolResult("c2", "a", "bad \udcff", Outcome.ERROR)),
    system("A note."),
    user(""),
    assistant(""),
    user("go on"),
)


@every_wire
async def test_any_history_is_taken(wire: str) -> None:
    """The scripted server rejects whatever the real service would."""
    assert (await answer(wire, Reply(text="ok"), ask(*HISTORY))).message.text == "ok"


@every_wire
async def test_requests_extend_each_other_on_one_connection(wire: str) -> None:
    replies = [Reply(thinking="t", text="x", calls=[("a", {"n": n}), ("b", {})]) for n in range(5)]
    messages: tuple[Message, ...] = (system("s"), user("go"))
    async with ScriptedServer(replies) as server:
        client = client_for(wire, server)
        for _ in replies:
            said = (await chat(client, ask(*messages))).message
            results = [tool(ToolResult(call.id, call.name, "done")) for call in said.calls]
            messages = (*messages, said, *results)
        await client.aclose()
    assert server.connections == 1 and server.faults == []
    sent = [prefix_of(request.json) for request in server.requests]
    for before, after in itertools.pairwise(sent):
        assert len(after) > len(before) and after[: len(before)] == before


def prefix_of(body: dict[str, Any]) -> list[Any]:
    """The parts of a request in the order of the prompt cache, without cache marks."""
    unmarked = json.loads(json.dumps(body), object_hook=_without_mark)
    turns = unmarked.get("messages") or unmarked.get("input")
    flat: list[Any] = [unmarked["tools"], unmarked.get("system")]
    for turn in turns:
        content = turn.get("content")
        if isinstance(content, list):
            flat += [(turn["role"], block) for block in content]
        else:
            flat.append(turn)
    return flat


def _without_mark(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("cache_control", None)
    return value


@every_wire
async def test_unpaired_calls_are_never_sent(wire: str) -> None:
    call = assistant("", ToolCall("c1", "a"))
    stray = tool(ToolResult("c9", "a", "x"))
    async with ScriptedServer([]) as server:
        client = client_for(wire, server)
        for history in ((user("a"), call), (user("a"), call, user("b")), (user("a"), stray)):
            with pytest.raises(errors.InternalError):
                await chat(client, ask(*history))
        await client.aclose()
        assert server.requests == []


HTML = b"<!doctype html><html><body>Sign in</body></html>"
FAULTS: dict[str, tuple[Reply, type[errors.ProviderError]]] = {
    "400": (Reply(status=400), errors.BadRequestError),
    "401": (Reply(status=401), errors.AuthenticationError),
    "402": (Reply(status=402), errors.QuotaError),
    "403": (Reply(status=403), errors.AccessDeniedError),
    "404": (Reply(status=404), errors.ModelNotFoundError),
    "413": (Reply(status=413), errors.ContextWindowError),
    "429": (Reply(status=429), errors.RateLimitError),
    "500": (Reply(status=500), errors.ServerError),
    "503": (Reply(status=503), errors.OverloadedError),
    "529": (Reply(status=529), errors.OverloadedError),
    "page": (Reply(body=HTML, content_type="text/html"), errors.StreamBrokenError),
    "page by another name": (Reply(body=HTML), errors.StreamBrokenError),
    "nothing": (Reply(body=b""), errors.StreamBrokenError),
    "not JSON": (Reply(body=b"data: {oops\n\n"), errors.StreamBrokenError),
    "other JSON": (Reply(body=b'{"a": 1}', stream=False), errors.StreamBrokenError),
    "other events": (Reply(body=b'data: {"a": 1}\n\n'), errors.StreamBrokenError),
    "reset before the head": (Reply(reset_before_head=True), errors.ConnectError),
    "stall": (Reply(text="hello", stall_after=600), errors.DeadlineError),
    "silence": (Reply(delay_s=30), errors.DeadlineError),
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("case", FAULTS)
@every_wire
async def test_faults(wire: str, case: str, streaming: bool) -> None:
    reply, kind = FAULTS[case]
    if reply.stall_after is not None and not streaming:
        reply = dataclasses.replace(reply, stall_after=20)
    patience_s = 0.3 if kind is errors.DeadlineError else 60.0
    with pytest.raises(errors.ProviderError) as caught:
        await answer(wire, reply, timeout_s=patience_s, streaming=streaming)
    assert type(caught.value) is kind
    line = caught.value.line()
    assert "test" in line and "\n" not in line and "<" not in line and "sk-secret" not in line
    if kind is errors.AuthenticationError:
        assert "THE_KEY" in line


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "budget_exceeded", errors.QuotaError),
        (429, "budget_exceeded", errors.QuotaError),
        (400, "no_db_connection", errors.AuthenticationError),
        (401, "expired_key", errors.AuthenticationError),
    ],
)
@every_wire
async def test_the_codes_of_litellm(
    wire: str, status: int, code: str, kind: type[errors.ProviderError]
) -> None:
    """They stand in ``type``, beside the status as ``code``."""
    error = {"message": "Sorry.", "type": code, "param": None, "code": str(status)}
    body = json.dumps({"error": error}).encode()
    with pytest.raises(errors.ProviderError) as caught:
        await answer(wire, Reply(status=status, body=body, stream=False))
    assert type(caught.value) is kind


@every_wire
async def test_an_event_that_only_its_name_tells_to_be_an_error(wire: str) -> None:
    """As in the Messages API of llama.cpp's server."""
    error = {"code": 500, "message": "No such format", "type": "server_error"}
    body = b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
    with pytest.raises(errors.ServerError, match="No such format"):
        await answer(wire, Reply(body=body, content_type="text/event-stream"))


@every_wire
async def test_an_error_after_the_end_of_the_answer(wire: str) -> None:
    found = wire_of(PATHS[wire])
    assert found is not None
    whole = found.stream(Reply(text="hello"), {"model": "m", "stream": True})
    last = {"chat": b"data: [DONE]", "messages": b"event: message_stop"}
    end = whole.index(last[wire]) if wire in last else len(whole)
    body = whole[:end] + b'event: error\ndata: {"error": {"message": "late"}}\n\n' + whole[end:]
    response = await answer(wire, Reply(body=body, content_type="text/event-stream"))
    assert response.message == assistant("hello")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        # transformers does not escape the quotes of an error
        (b'data: {"error": "no ("q") sk-secret"}\n\n', 'not JSON: {"error": "no ("q") ***"}'),
        (b"upstream connect error", "no event stream: upstream connect error"),
        (b"{oops", "a body that is not JSON: {oops"),
    ],
)
@every_wire
async def test_what_a_server_says_is_told_though_it_is_not_readable(
    wire: str, body: bytes, told: str
) -> None:
    with pytest.raises(errors.StreamBrokenError) as caught:
        await answer(wire, Reply(body=body))
    assert caught.value.message.endswith(told)


@every_wire
async def test_an_error_status_whose_body_is_an_event_stream(wire: str) -> None:
    """As from LiteLLM's proxy, if a stream fails before its first event."""
    error = {"message": "No credit left", "type": "insufficient_quota", "code": "500"}
    body = b"data: " + json.dumps({"error": error}).encode() + b"\n\ndata: [DONE]\n\n"
    for status, kind in ((500, errors.ServerError), (429, errors.QuotaError)):
        with pytest.raises(kind) as caught:
            await answer(wire, Reply(status=status, body=body, content_type="text/event-stream"))
        assert caught.value.message.endswith(f"({status}, insufficient_quota): No credit left")


@every_wire
async def test_a_404_without_a_code_may_be_the_address(wire: str) -> None:
    """As from FastAPI, for a path that does not exist."""
    async with ScriptedServer([Reply(status=404, body=b'{"detail":"Not Found"}')]) as server:
        client = CLIENTS[wire](INFO, "k", server.root)
        with pytest.raises(errors.ModelNotFoundError) as caught:
            await chat(client, ask())
        await client.aclose()
    line = caught.value.line()
    assert line.startswith("test has nothing at this address, or does not know the model 'gpt-6-t")
    assert line.endswith(f"the address {server.root}, which usually ends in /v1")


@every_wire
async def test_a_server_that_wants_a_key_of_a_provider_without_one(wire: str) -> None:
    async with ScriptedServer([Reply(status=401, message="Invalid API key")]) as server:
        client = CLIENTS[wire](INFO, "", server.url)
        with pytest.raises(errors.AuthenticationError, match="test wants a key") as caught:
            await chat(client, ask())
        await client.aclose()
    assert "providers.test.api_key_env" in caught.value.line()


def cuts(wire: str, reply: Reply) -> int:
    """The offset where the content ends and the closing events begin."""
    found = wire_of(PATHS[wire])
    assert found is not None
    body = found.stream(reply, {"model": "m"})
    last = {
        "chat": b'"finish_reason": "',
        "responses": b"event: response.completed",
        "messages": b"event: message_delta",
    }
    return body.index(last[wire])


BREAKS = ("reset_after", "close_after", "cut_after")


@pytest.mark.parametrize("way", BREAKS)
@pytest.mark.parametrize("reply", [Reply(text="hello"), Reply(calls=[("a", {"x": "y" * 20})])])
@every_wire
async def test_answers_that_break_off(wire: str, reply: Reply, way: str) -> None:
    end = cuts(wire, reply) - 1
    for at in (end, end * 3 // 4, end // 2):
        with pytest.raises(errors.StreamBrokenError):
            await answer(wire, broken(reply, way, at))


EVENTS = {
    "overloaded": ({"type": "overloaded_error", "message": "busy"}, errors.OverloadedError),
    "server": ({"type": "server_error", "message": "oops"}, errors.ServerError),
    "rate": ({"code": "rate_limit_exceeded", "message": "slow"}, errors.RateLimitError),
    "quota": ({"code": "insufficient_quota", "message": "empty"}, errors.QuotaError),
    "context": ({"code": "context_length_exceeded", "message": "x"}, errors.ContextWindowError),
}


@pytest.mark.parametrize("case", EVENTS)
@every_wire
async def test_error_events_inside_the_stream(wire: str, case: str) -> None:
    event, kind = EVENTS[case]
    if wire == "responses" and "type" in event:
        event = {"code": event["type"], "message": event["message"]}
    with pytest.raises(errors.ProviderError) as caught:
        await answer(wire, Reply(text="abc", error_event=event))
    assert type(caught.value) is kind


@every_wire
async def test_uncoded_refusal_of_a_request_as_long_as_the_window(wire: str) -> None:
    with pytest.raises(errors.ContextWindowError):
        await answer(wire, Reply(status=400), ask(user("word " * 100_000)))


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "250"}, 0.25, 0.25),
        ({"retry-after": "Fri, 31 Dec 2066 23:59:59 GMT"}, 1e8, 1e10),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0, 0),
    ],
)
@every_wire
async def test_retry_after(wire: str, headers: dict[str, str], low: float, high: float) -> None:
    with pytest.raises(errors.RateLimitError) as caught:
        await answer(wire, Reply(status=429, headers=headers))
    assert caught.value.retry_after_s is not None
    assert low <= caught.value.retry_after_s <= high


@pytest.mark.parametrize(("value", "told"), [("601", "in 11 min"), ("60", "later"), ("", "later")])
async def test_a_long_pause_is_told(value: str, told: str) -> None:
    with pytest.raises(errors.RateLimitError) as caught:
        await answer("chat", Reply(status=429, headers={"retry-after": value}))
    assert caught.value.hint == f"Try again {told}"


@pytest.mark.parametrize("value", ["soon", "", "nan"])
async def test_retry_after_that_says_nothing(value: str) -> None:
    with pytest.raises(errors.RateLimitError) as caught:
        await answer("chat", Reply(status=429, headers={"retry-after": value}))
    assert caught.value.retry_after_s is None


@every_wire
async def test_a_whole_answer_needs_no_more(wire: str) -> None:
    for way in ("close_after", "cut_after"):
        response = await answer(wire, broken(Reply(text="yes"), way, 10**9))
        assert response.message.text == "yes"


@every_wire
async def test_sampling(wire: str) -> None:
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9)
    async with ScriptedServer([Reply(text="x")]) as server:
        client = client_for(wire, server)
        await chat(client, ChatRequest((user("a"),), (), sampling))
        await client.aclose()
        body = server.requests[0].json
    assert 7 in (body.get("max_tokens"), body.get("max_output_tokens"))
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)
    assert "tools" not in body and None not in body.values()


@every_wire
async def test_five_megabytes(wire: str) -> None:
    text = "0123456789abcdef" * (5 * 1024 * 1024 // 16)
    response = await answer(wire, Reply(text=text), ask(user(text[:1000])))
    assert response.message.text == text and response.message.role is Role.ASSISTANT


@every_wire
async def test_an_image_counts_as_an_image(wire: str) -> None:
    photo = Image(bytes(3_000_000), "image/png")
    async with ScriptedServer([]) as server:
        client = client_for(wire, server)
        assert 1000 < (await client.count_tokens(ask(user("look", photo)))).tokens < 3000
        await client.aclose()


ODD = [
    b'{"choices":[{"message":{"content":[{"thinking":5}],"reasoning_details":5}}]}',
    b'{"output":[null,5,{"type":"message","content":[null]},{"type":"reasoning","summary":[null]}]}',
    b'{"content":[null,5,{"type":"tool_use","input":"x"}],"stop_reason":5,"usage":5}',
    b"[" * 100_000,
    b"null",
]


@every_wire
@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
async def test_no_odd_answer_is_an_internal_error(wire: str, body: bytes) -> None:
    with pytest.raises(errors.StreamBrokenError):
        await answer(wire, Reply(body=body, stream=False))


@every_wire
@pytest.mark.parametrize("way", ["reset_after", "close_after"])
async def test_the_status_counts_when_the_body_of_an_error_breaks_off(wire: str, way: str) -> None:
    with pytest.raises(errors.AuthenticationError):
        await answer(wire, broken(Reply(status=401, body=b'{"error": {'), way, 5))


@every_wire
async def test_reasoning_of_another_wire_stays_away(wire: str) -> None:
    foreign = Thinking("", data='{"provider":"else","extra_content":{"a":1}}')
    said = Message(Role.ASSISTANT, (foreign, ToolCall("c", "read_file", "{}")))
    request = ask(user("go"), said, tool(ToolResult("c", "read_file", "x")))
    async with ScriptedServer([Reply(text="ok")]) as server:
        client = client_for(wire, server)
        assert (await chat(client, request)).message.text == "ok"
        await client.aclose()
    sent = json.dumps(server.requests[0].json)
    assert "read_file" in sent and "extra_content" not in sent


async def test_the_older_form_of_a_call() -> None:
    older = {"function_call": {"name": "read_file", "arguments": "{}"}}
    choice = {"message": {"content": None, **older}, "finish_reason": "function_call"}
    body = json.dumps({"choices": [choice]}).encode()
    response = await answer("chat", Reply(body=body, stream=False))
    assert [call.name for call in response.message.calls] == ["read_file"]


@every_wire
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_compressed_answer(wire: str, streaming: bool) -> None:
    format_ = wire_of(PATHS[wire])
    assert format_ is not None
    reply, request = Reply(text="Grüße 🎉"), {"model": "m", "stream": streaming}
    body = format_.stream(reply, request) if streaming else format_.body(reply, request)
    packed = Reply(body=gzip.compress(body), headers={"content-encoding": "gzip"}, split=7)
    response = await answer(wire, packed, streaming=streaming)
    assert response.message == assistant("Grüße 🎉")


@every_wire
@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1", "http://[::1]:1/v1"]
)
async def test_what_cannot_be_reached(wire: str, url: str) -> None:
    async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is no TLS\r\n")
        writer.close()

    async with await asyncio.start_server(speak_first, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        client = CLIENTS[wire](INFO, "sk-secret", url.format(port=port))
        with pytest.raises(errors.ConnectError, match="cannot reach test at "):
            await chat(client, ask())
        await client.aclose()
