"""Chat Completions over real HTTP against the scripted server."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentcli import errors
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    Finished,
    ModelInfo,
    Sampling,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallStart,
    chat,
)
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import (
    FinishReason,
    Image,
    Message,
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
from tests.wires import chat as wire

INFO = ModelInfo("gpt-test", "openai", context_window=128_000)
READ = ToolDefinition("read_file", "Read a file.", {"type": "object", "properties": {}})


def client_for(server: ScriptedServer | str, **options: Any) -> OpenAIChat:
    url = server if isinstance(server, str) else server.url
    return OpenAIChat(INFO, "sk-test", url, key_name="OPENAI_API_KEY", **options)


def ask(*messages: Message, tools: Sequence[ToolDefinition] = ()) -> ChatRequest:
    return ChatRequest(messages or (user("hello"),), tuple(tools))


async def answer(reply: Reply, request: ChatRequest | None = None, **options: Any) -> ChatResponse:
    async with ScriptedServer([reply]) as server:
        client = client_for(server, **options)
        try:
            return await chat(client, request or ask())
        finally:
            await client.aclose()
            assert server.faults == []


async def body_of(request: ChatRequest, **options: Any) -> dict[str, Any]:
    async with ScriptedServer([Reply(text="ok")]) as server:
        client = client_for(server, **options)
        await chat(client, request)
        await client.aclose()
        assert server.faults == []
        sent: dict[str, Any] = server.requests[0].json
        return sent


def without_ids(response: ChatResponse) -> ChatResponse:
    parts = tuple(
        dataclasses.replace(part, id="") if isinstance(part, ToolCall) else part
        for part in response.message.parts
    )
    return dataclasses.replace(response, message=Message(response.message.role, parts))


async def test_text_and_usage() -> None:
    usage = Usage(input_tokens=50, cached_tokens=30, output_tokens=7, reasoning_tokens=2)
    response = await answer(Reply(text="Hello, wörld 🎉", usage=usage))
    assert response.message == assistant("Hello, wörld 🎉")
    assert response.finish_reason is FinishReason.STOP
    assert response.usage == usage


async def test_two_parallel_calls() -> None:
    calls = [("read_file", {"path": "a.py"}), ("grep", {"pattern": "ä"})]
    response = await answer(Reply(text="Looking.", calls=calls))
    assert response.message.text == "Looking."
    assert [(c.name, json.loads(c.arguments)) for c in response.message.calls] == calls
    assert len({c.id for c in response.message.calls}) == 2
    assert response.finish_reason is FinishReason.TOOL_CALLS


async def test_interleaved_calls() -> None:
    calls = [("a", {"x": "1" * 40}), ("b", {"y": "2" * 40})]
    response = await answer(Reply(calls=calls, one_by_one=False))
    assert [(c.name, json.loads(c.arguments)) for c in response.message.calls] == calls


SAMPLES = {
    "text": Reply(text="Grüße 🎉", piece=6),
    "calls": Reply(text="ä", calls=[("a", '{"x":"é🎉"}'), ("b", "{}")], piece=6),
}


@pytest.mark.parametrize("sample", SAMPLES)
async def test_split_at_every_byte_boundary(sample: str) -> None:
    reply = SAMPLES[sample]
    whole = wire_bytes(reply)
    want = without_ids(await answer(reply))
    # Small pieces split at every boundary; two large pieces also leave whole lines in each.
    replies = [dataclasses.replace(reply, split=size) for size in (1, 2, 3)]
    replies += [dataclasses.replace(reply, split=(at,)) for at in range(1, len(whole), 3)]
    async with ScriptedServer(replies) as server:
        client = client_for(server)
        for _ in replies:
            assert without_ids(await chat(client, ask())) == want
        await client.aclose()
        assert server.connections == 1


def wire_bytes(reply: Reply) -> bytes:
    from tests.wires import wire_of

    found = wire_of("/chat/completions")
    assert found is not None
    return found.stream(reply, {"model": "gpt-test", "stream_options": {"include_usage": True}})


EQUAL = {
    **SAMPLES,
    "empty": Reply(),
    "thinking": Reply(thinking="let me see", text="42"),
    "raw arguments": Reply(calls=[("a", '{"x": '), ("b", ""), ("c", "null"), ("d", "{} trailing")]),
    "length": Reply(text="and so", finish="length"),
    "length in a call": Reply(calls=[("a", "{}"), ("b", '{"x": "un')], finish="length"),
    "filtered": Reply(text="I", finish="content_filter"),
    "cached": Reply(text="x", usage=Usage(90, 80, 0, 5, 1)),
    "unknown finish": Reply(text="x", finish="eos"),
    "stop with calls": Reply(calls=[("a", {})], finish="stop"),
    "duplicate ids": Reply(calls=[("a", {}), ("b", {})], call_ids=["same", "same"]),
    "no ids": Reply(calls=[("a", {}), ("b", {"k": 1})], call_ids=["", ""]),
}


@pytest.mark.parametrize("case", EQUAL)
async def test_streamed_and_whole_answers_fold_to_the_same(case: str) -> None:
    streamed = await answer(EQUAL[case])
    whole = await answer(EQUAL[case], streaming=False)
    unasked = await answer(dataclasses.replace(EQUAL[case], stream=False))
    assert without_ids(streamed) == without_ids(whole) == without_ids(unasked)
    ids = [call.id for call in streamed.message.calls]
    assert all(ids) and len(set(ids)) == len(ids)


async def test_malformed_arguments_are_passed_on_as_they_are() -> None:
    raw = '{"path": "a.py", oops'
    response = await answer(Reply(calls=[("read_file", raw)]))
    assert response.message.calls[0].arguments == raw


async def test_no_arguments_are_an_empty_object() -> None:
    response = await answer(Reply(calls=[("list_dir", "")]))
    assert response.message.calls[0].arguments == "{}"


async def test_token_limit_inside_a_call_cuts_it() -> None:
    response = await answer(Reply(text="Now", calls=[("w", '{"content": "un')], finish="length"))
    assert response.finish_reason is FinishReason.LENGTH
    assert response.message.calls == () and response.cut_calls == 1


async def test_token_limit_before_the_name_of_a_call() -> None:
    body = chunks({"content": "Now"}, {"tool_calls": [{"index": 0, "id": "1"}]}, finish="length")
    response = await answer(Reply(body=body))
    assert (response.message.text, response.message.calls) == ("Now", ())
    assert response.finish_reason is FinishReason.LENGTH


async def test_deltas_arrive_as_they_are_sent() -> None:
    async with ScriptedServer(
        [Reply(thinking="th", text="abcdef", calls=[("a", {"k": "v"})])]
    ) as s:
        client = client_for(s)
        events = [event async for event in client.stream(ask())]
        await client.aclose()
    assert len([e for e in events if isinstance(e, TextDelta)]) > 1
    assert len([e for e in events if isinstance(e, ToolCallDelta)]) > 1
    assert [type(e) for e in events if isinstance(e, ThinkingDelta | ToolCallStart)][-1] is (
        ToolCallStart
    )
    assert isinstance(events[-1], Finished)


async def test_request_as_it_is_sent() -> None:
    call = ToolCall("c1", "read_file", '{"path": "a"')
    request = ChatRequest(
        (
            system("one"),
            user("look", Image(b"\x89PNG", "image/png")),
            system("two"),
            Message(Role.ASSISTANT, (Thinking("hm"), call)),
            tool(ToolResult("c1", "read_file", "")),
            user("invalid \udcff text"),
        ),
        (READ,),
        Sampling(max_tokens=99, temperature=0.0, seed=1, stop=("END",)),
    )
    body = await body_of(request)
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "system", "assistant", "tool", "user"]
    assert [m["content"] for m in body["messages"]][3:] == ["", "", "invalid ? text"]
    assert body["messages"][1]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    # Many servers parse the arguments, and fail unless they are a JSON object.
    arguments = body["messages"][3]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"INVALID_JSON": '{"path": "a"'}
    assert body["tools"][0]["function"]["name"] == "read_file"
    assert body["stream_options"] == {"include_usage": True}
    limits = {k: body[k] for k in ("max_tokens", "temperature", "seed", "stop")}
    assert limits == {
        "max_tokens": 99,
        "temperature": 0.0,
        "seed": 1,
        "stop": ["END"],
    }
    assert "top_p" not in body and "reasoning_content" not in body["messages"][3]


async def test_reasoning_goes_back_where_the_server_wants_it() -> None:
    said = Message(Role.ASSISTANT, (Thinking("because"), Text("yes")))
    body = await body_of(ask(user("a"), said, user("b")), reasoning_field="reasoning_content")
    assert body["messages"][1]["reasoning_content"] == "because"


@pytest.mark.parametrize("streaming", [True, False])
async def test_what_a_provider_wants_back_unread(streaming: bool) -> None:
    """Gemini's call signatures and OpenRouter's reasoning details must be sent back unchanged."""
    extra = {"google": {"thought_signature": "sig"}}
    calls = [
        piece("a", "{}", id="1", index=0, extra_content=extra),
        piece("b", "{}", id="2", index=1),
    ]
    details = [{"type": "reasoning.text", "index": 0, "text": "be"}]
    more = [{"type": "reasoning.text", "index": 0, "text": "cause", "signature": "s"}]
    whole = [{"type": "reasoning.text", "index": 0, "text": "because", "signature": "s"}]
    deltas = [{"reasoning_details": details}, {"reasoning_details": more}, {"tool_calls": calls}]
    body = chunks(*deltas)
    if not streaming:
        message = {"content": None, "reasoning_details": whole, "tool_calls": calls}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    first = await answer(Reply(body=body, stream=streaming), streaming=streaming)
    assert [call.name for call in first.message.calls] == ["a", "b"]
    results = [tool(ToolResult(call.id, call.name, "")) for call in first.message.calls]
    again = await body_of(ask(user("x"), first.message, *results))
    said = again["messages"][1]
    assert [call.get("extra_content") for call in said["tool_calls"]] == [extra, None]
    assert said["reasoning_details"] == whole
    elsewhere = dataclasses.replace(INFO, provider="other")
    async with ScriptedServer([Reply(text="ok")]) as server:
        client = OpenAIChat(elsewhere, "k", server.url)
        await chat(client, ask(user("x"), first.message, *results))
        await client.aclose()
        assert "signature" not in json.dumps(server.requests[0].json)


async def test_a_server_that_does_not_hang_up_costs_little() -> None:
    whole = chunks({"content": "yes"}, finish="stop")
    async with ScriptedServer([Reply(body=whole, stall_after=len(whole))]) as server:
        client = client_for(server)
        async with asyncio.timeout(20):
            assert (await chat(client, ask())).message.text == "yes"
        await client.aclose()


async def test_proxies_are_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await answer(Reply(text="yes"))).message.text == "yes"


async def test_no_tools_means_no_field() -> None:
    assert "tools" not in await body_of(ask())


async def test_unpaired_calls_are_never_sent() -> None:
    call = assistant("", ToolCall("c1", "a"))
    async with ScriptedServer([]) as server:
        client = client_for(server)
        for history in ((user("a"), call), (user("a"), call, user("b")), (user("a"), stray())):
            with pytest.raises(errors.InternalError):
                await chat(client, ask(*history))
        await client.aclose()
        assert server.requests == []


def stray() -> Message:
    return tool(ToolResult("c9", "a", "x"))


async def test_requests_extend_each_other_on_one_connection() -> None:
    replies = [Reply(calls=[("a", {"n": n})]) for n in range(6)]
    async with ScriptedServer(replies) as server:
        client = client_for(server)
        messages: tuple[Message, ...] = (system("s"), user("go"))
        for _ in replies:
            said = (await chat(client, ask(*messages, tools=(READ,)))).message
            results = [tool(ToolResult(call.id, call.name, "done")) for call in said.calls]
            messages = (*messages, said, *results)
        await client.aclose()
        assert server.connections == 1 and server.faults == []
        for before, after in itertools.pairwise(server.requests):
            sent = before.json["messages"]
            assert after.json["messages"][: len(sent)] == sent
            assert after.json["tools"] == before.json["tools"]


async def test_ids_are_new_within_the_history() -> None:
    history = (user("a"), assistant("", ToolCall("x", "a")), tool(ToolResult("x", "a", "r")))
    response = await answer(Reply(calls=[("a", {})], call_ids=["x"]), ask(*history))
    assert response.message.calls[0].id not in ("x", "")


async def test_five_megabytes() -> None:
    text = "0123456789abcdef" * (5 * 1024 * 1024 // 16)
    response = await answer(Reply(text=text, piece=1000), ask(user(text)))
    assert response.message.text == text


def chunks(
    *deltas: Mapping[str, Any], finish: str | None = "tool_calls", done: bool = True
) -> bytes:
    parts: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    if finish:
        parts.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    lines = [f"data: {json.dumps(part)}\n\n" for part in parts]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def piece(name: str = "", arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name} if name else {}
    return {"function": {**function, "arguments": arguments}, **more}


TWO = [("a", {"x": 1}), ("b", {"y": 2})]
ODD_CALLS: dict[str, list[dict[str, Any]]] = {
    "no index": [
        {"tool_calls": [piece("a", '{"x"', id="1")]},
        {"tool_calls": [piece("", ":1}")]},
        {"tool_calls": [piece("b", '{"y":2}', id="2")]},
    ],
    "no index, no id": [
        {"tool_calls": [piece("a", '{"x":1}')]},
        {"tool_calls": [piece("b", '{"y":2}')]},
    ],
    "all in one chunk, no index": [
        {"tool_calls": [piece("a", '{"x":1}', id="1"), piece("b", '{"y":2}', id="2")]},
    ],
    "index always 0": [
        {"tool_calls": [piece("a", '{"x":1}', id="1", index=0)]},
        {"tool_calls": [piece("b", '{"y":2}', id="2", index=0)]},
    ],
    "one id for both": [
        {"tool_calls": [piece("a", '{"x":1}', id="1", index=0)]},
        {"tool_calls": [piece("b", '{"y":2}', id="1", index=1)]},
    ],
    "id and name in every piece": [
        {"tool_calls": [piece("a", '{"x"', id="1", index=0)]},
        {"tool_calls": [piece("a", ":1}", id="1", index=0)]},
        {"tool_calls": [piece("b", '{"y":', id="2", index=1)]},
        {"tool_calls": [piece("b", "2}", id="2", index=1)]},
        {"tool_calls": [piece("b", "", id="2", index=1)]},
    ],
    "objects as arguments": [
        {"tool_calls": [piece("a", {"x": 1}, id="1", index=0)]},
        {"tool_calls": [piece("b", {"y": 2}, id="2", index=1)]},
    ],
    "name after the id": [
        {"tool_calls": [{"index": 0, "id": "1"}]},
        {"tool_calls": [piece("a", '{"x":1}', index=0)]},
        {"tool_calls": [piece("b", None, id="2", index=1)]},
        {"tool_calls": [piece("", '{"y":2}', index=1)]},
    ],
}


@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
@pytest.mark.parametrize("case", ODD_CALLS)
async def test_servers_that_bend_the_format(case: str, finish: str | None) -> None:
    response = await answer(Reply(body=chunks(*ODD_CALLS[case], finish=finish)))
    assert [(c.name, json.loads(c.arguments)) for c in response.message.calls] == TWO
    ids = [call.id for call in response.message.calls]
    assert all(ids) and len(set(ids)) == 2
    assert response.finish_reason is FinishReason.TOOL_CALLS


async def test_same_tool_twice_without_id_and_index() -> None:
    body = chunks({"tool_calls": [piece("a", '{"x":1}')]}, {"tool_calls": [piece("a", '{"x":2}')]})
    response = await answer(Reply(body=body))
    assert [json.loads(c.arguments) for c in response.message.calls] == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("index", [None, 0])
async def test_pieces_of_calls_are_told_apart_by_their_ids(index: int | None) -> None:
    body = chunks(
        *(
            {"tool_calls": [piece(name, text, id=id, index=index)]}
            for name, text, id in (
                ("a", '{"x":', "1"),
                ("b", '{"x":', "2"),
                ("", "1}", "1"),
                ("", "2}", "2"),
            )
        )
    )
    response = await answer(Reply(body=body))
    calls = [(call.name, json.loads(call.arguments)) for call in response.message.calls]
    assert calls == [("a", {"x": 1}), ("b", {"x": 2})]


async def test_a_body_that_is_not_utf8() -> None:
    body = b'{"choices":[{"message":{"content":"a\xffb"},"finish_reason":"stop"}]}'
    assert (await answer(Reply(body=body), streaming=False)).message.text == "a\ufffdb"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_fields(field: str) -> None:
    body = chunks({field: "hm "}, {field: "well"}, {"content": "yes"}, finish="stop")
    response = await answer(Reply(body=body))
    assert response.message.parts == (Thinking("hm well"), Text("yes"))


async def test_content_in_parts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    body = chunks({"content": [thought]}, {"content": [{"type": "text", "text": "yes"}]})
    response = await answer(Reply(body=body))
    assert response.message.parts == (Thinking("hm"), Text("yes"))


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain", "", "a/b; charset=x"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_event_streams_by_any_name(content_type: str, newline: str) -> None:
    body = b": hi\n\nevent: x\nid: 1\n" + chunks({"content": "yes"}, finish="stop")
    body = body.replace(b"\n", newline.encode())
    response = await answer(Reply(body=body, content_type=content_type))
    assert response.message.text == "yes"


async def test_invalid_utf8_in_the_answer() -> None:
    body = chunks({"content": "a#b"}, finish="stop").replace(b"#", b"\xff")
    assert (await answer(Reply(body=body))).message.text == "a\ufffdb"


async def test_an_answer_that_is_whole_needs_no_more() -> None:
    body = chunks({"content": "yes"}, finish="stop", done=False)
    for reply in (
        Reply(body=body),
        Reply(body=body, close_after=len(body)),
        Reply(body=body + b"data: garbage\n", stream=True),
    ):
        assert (await answer(reply)).message.text == "yes"


HALF = chunks({"content": "a"}, {"content": "b"}, finish=None, done=False)
HALF_CALL = chunks({"tool_calls": [piece("a", '{"x"', id="1", index=0)]}, finish=None, done=False)
CALL_DONE = chunks({"tool_calls": [piece("a", '{"x"', id="1", index=0)]}, finish=None)
ERROR = {"message": "The server had an error", "type": "server_error", "code": None}
QUOTA = {"message": "no more", "type": "insufficient_quota", "code": "insufficient_quota"}
HTML = b"<!doctype html><html><body>Sign in</body></html>"


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>\nHm, a </b>?\n\nYes.\n</think>\n\nIt is.\n", "Hm, a </b>?\n\nYes.", "It is.\n"),
        ("\n<think></think>It is.", "", "It is."),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("Write <think>a</think>.", "", "Write <think>a</think>."),
        ("<thing> is a tag", "", "<thing> is a tag"),
        ("  <thi", "", "  <thi"),
    ],
)
async def test_thoughts_in_the_text(text: str, thought: str, said: str, piece: int) -> None:
    response = await answer(Reply(text=text, piece=piece))
    thoughts = [part.text for part in response.message.parts if isinstance(part, Thinking)]
    assert ("".join(thoughts), response.message.text) == (thought, said)
    whole = await answer(Reply(text=text, stream=False))
    assert whole.message == response.message


async def test_a_call_after_a_thought_in_the_text() -> None:
    reply = Reply(text="<think>I look.</think>\n", calls=[("look", {"x": 1})])
    response = await answer(reply)
    assert [type(part) for part in response.message.parts] == [Thinking, ToolCall]


FAULTS: dict[str, tuple[Reply, type[errors.ProviderError]]] = {
    "400": (Reply(status=400), errors.BadRequestError),
    "401": (Reply(status=401, code="invalid_api_key"), errors.AuthenticationError),
    "402": (Reply(status=402), errors.QuotaError),
    "403": (Reply(status=403), errors.AccessDeniedError),
    "404": (Reply(status=404, code="model_not_found"), errors.ModelNotFoundError),
    "408": (Reply(status=408), errors.DeadlineError),
    "409": (Reply(status=409), errors.ServerError),
    "413": (Reply(status=413), errors.ContextWindowError),
    "418": (Reply(status=418), errors.BadRequestError),
    "422": (Reply(status=422), errors.BadRequestError),
    "429": (Reply(status=429, code="rate_limit_exceeded"), errors.RateLimitError),
    "429 quota": (Reply(status=429, code="insufficient_quota"), errors.QuotaError),
    "400 context": (Reply(status=400, code="context_length_exceeded"), errors.ContextWindowError),
    "400 filter": (Reply(status=400, code="content_filter"), errors.ContentFilterError),
    "500": (Reply(status=500), errors.ServerError),
    "502 page": (Reply(status=502, body=HTML, content_type="text/html"), errors.ServerError),
    "503": (Reply(status=503), errors.OverloadedError),
    "529": (Reply(status=529), errors.OverloadedError),
    "page with status 200": (Reply(body=HTML, content_type="text/html"), errors.StreamBrokenError),
    "page by another name": (Reply(body=HTML), errors.StreamBrokenError),
    "nothing": (Reply(body=b""), errors.StreamBrokenError),
    "not JSON": (Reply(body=b"data: {oops\n\n"), errors.StreamBrokenError),
    "a list": (Reply(body=b"data: [1]\n\n"), errors.StreamBrokenError),
    "JSON without choices": (Reply(body=b"{}", stream=False), errors.StreamBrokenError),
    "events without choices": (
        Reply(body=b'data: {"id": "x"}\n\ndata: [DONE]\n\n'),
        errors.StreamBrokenError,
    ),
    "broken JSON body": (Reply(body=b'{"choices"', stream=False), errors.StreamBrokenError),
    "error body with status 200": (
        Reply(body=json.dumps({"error": QUOTA}).encode(), stream=False),
        errors.QuotaError,
    ),
    "error event": (Reply(text="abc", error_event=ERROR), errors.ServerError),
    "error event with a code": (Reply(text="abc", error_event=QUOTA), errors.QuotaError),
    "error event with a status": (
        Reply(text="abc", error_event={"message": "busy", "code": 429}),
        errors.RateLimitError,
    ),
    "reset before the head": (Reply(reset_before_head=True), errors.ConnectError),
    "reset in mid-text": (Reply(text="hello", reset_after=len(HALF)), errors.StreamBrokenError),
    "closed in mid-text": (Reply(body=HALF, close_after=len(HALF)), errors.StreamBrokenError),
    "clean end in mid-text": (Reply(body=HALF), errors.StreamBrokenError),
    "clean end in a call": (Reply(body=HALF_CALL), errors.StreamBrokenError),
    "half a call before [DONE]": (Reply(body=CALL_DONE), errors.StreamBrokenError),
    "cut inside an event": (Reply(text="hello", cut_after=len(HALF) - 9), errors.StreamBrokenError),
    "a call without a name": (
        Reply(body=chunks({"tool_calls": [piece("", "{}", id="1")]})),
        errors.StreamBrokenError,
    ),
    "stall": (Reply(text="hello", stall_after=len(HALF)), errors.DeadlineError),
    "silence": (Reply(delay_s=30), errors.DeadlineError),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_faults(case: str) -> None:
    reply, kind = FAULTS[case]
    with pytest.raises(errors.ProviderError) as caught:
        await answer(reply, timeout_s=0.3 if kind is errors.DeadlineError else 60.0)
    assert type(caught.value) is kind
    assert caught.value.provider == "openai" and caught.value.exit_code == 3
    line = caught.value.line()
    assert "openai" in line and "\n" not in line and "<" not in line


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
        "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "litellm.BadRequestError: litellm.ContextWindowExceededError: too many tokens",
        "Your input exceeds the context window of this model.",
        "prompt is too long: 208310 tokens > 200000 maximum",
        "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
async def test_a_full_context_is_known_without_a_code(message: str) -> None:
    with pytest.raises(errors.ContextWindowError) as caught:
        await answer(Reply(status=400, message=message))
    assert message.rstrip(".") in caught.value.message
    event = {"message": message, "type": "BadRequestError", "code": 400}
    with pytest.raises(errors.ContextWindowError):
        await answer(Reply(text="", error_event=event))


@pytest.mark.parametrize(
    "message", ["max_context is no option", "the context has an unknown role", "tool name too long"]
)
async def test_other_refusals_are_not_about_the_context(message: str) -> None:
    with pytest.raises(errors.BadRequestError) as caught:
        await answer(Reply(status=400, message=message))
    assert type(caught.value) is errors.BadRequestError


async def test_unreachable() -> None:
    client = client_for("http://127.0.0.1:9/v1")
    with pytest.raises(errors.ConnectError, match=r"127\.0\.0\.1:9"):
        await chat(client, ask())
    await client.aclose()


async def test_the_key_is_never_shown() -> None:
    with pytest.raises(errors.AuthenticationError) as caught:
        await answer(Reply(status=401, message="bad key sk-test\nfor you"))
    assert "sk-test" not in caught.value.line()
    assert "bad key *** for you" in caught.value.line()


async def test_uncoded_refusal_of_a_request_as_long_as_the_window() -> None:
    with pytest.raises(errors.ContextWindowError):
        await answer(Reply(status=400), ask(user("word " * 120_000)))


async def test_structure_of_an_error() -> None:
    reply = Reply(status=429, code="rate_limit_exceeded", headers={"retry-after": "7"})
    with pytest.raises(errors.RateLimitError) as caught:
        await answer(reply)
    error = caught.value
    assert (error.status, error.code, error.retry_after_s) == (429, "rate_limit_exceeded", 7.0)


async def test_a_client_never_retries() -> None:
    async with ScriptedServer([Reply(status=500), Reply(text="x")]) as server:
        client = client_for(server)
        with pytest.raises(errors.ServerError):
            await chat(client, ask())
        await client.aclose()
        assert len(server.requests) == 1


async def test_connection_survives_faults_and_cancellation() -> None:
    stalled = Reply(body=HALF, stall_after=len(HALF))
    async with ScriptedServer([stalled, Reply(status=503), Reply(text="a"), Reply(text="b")]) as s:
        client = client_for(s)
        begun = asyncio.Event()

        async def read() -> None:
            async for event in client.stream(ask()):
                if isinstance(event, TextDelta):
                    begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(errors.OverloadedError):
            await chat(client, ask())
        assert (await chat(client, ask())).message.text == "a"
        assert (await chat(client, ask())).message.text == "b"
        await client.aclose()
        assert s.connections == 2  # the cancelled connection cannot be reused


async def test_leaving_a_stream_early_closes_it() -> None:
    stalled = Reply(text="x" * 1000, stall_after=500, split=50)
    async with ScriptedServer([stalled, Reply(text="next")]) as server:
        client = client_for(server)
        stream = client.stream(ask())
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        await stream.aclose()  # type: ignore[attr-defined]
        assert (await chat(client, ask())).message.text == "next"
        assert server.connections == 2  # the first connection cannot be reused
        await client.aclose()


async def test_count_is_calibrated_by_use() -> None:
    request = ask(user("word " * 1000))
    async with ScriptedServer([Reply(text="x", usage=Usage(input_tokens=1234))]) as server:
        client = client_for(server)
        assert 1000 < (await client.count_tokens(request)).tokens < 1600
        await chat(client, request)
        assert abs((await client.count_tokens(request)).tokens - 1234) <= 2
        await client.aclose()


async def test_headers() -> None:
    async with ScriptedServer([Reply(text="x")]) as server:
        client = client_for(server, headers={"x-title": "agentcli"})
        await chat(client, ask())
        await client.aclose()
        sent = server.requests[0].headers
    assert sent["authorization"] == "Bearer sk-test" and sent["x-title"] == "agentcli"


async def test_organization_stays_with_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    async with ScriptedServer([Reply(text="x")]) as server:
        client = client_for(server)
        await chat(client, ask())
        await client.aclose()
        assert "openai-organization" not in server.requests[0].headers


def test_server_refuses_what_the_service_would() -> None:
    assert wire.check({"model": "m", "messages": [{"role": "user", "content": None}]})
    orphan = {"role": "tool", "tool_call_id": "x", "content": ""}
    assert wire.check({"model": "m", "messages": [orphan]})
    assert not wire.check({"model": "m", "messages": [{"role": "user", "content": ""}]})
