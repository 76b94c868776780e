"""The embedded model's chat format: rendered messages parse back, token by token."""

from __future__ import annotations

import json

import pytest

from agentcli.llm.client import Finished, StreamEvent, StreamFold, TextDelta, ToolCallDelta
from agentcli.llm.nanochat_format import (
    DECLINE_TOOL,
    INLINE_TOOL,
    SPECIAL_TOKENS,
    NanochatFormat,
    arguments_text,
)
from agentcli.messages import (
    FinishReason,
    Message,
    ToolCall,
    ToolResult,
    assistant,
    system,
    tool,
    user,
)


class Bytes:
    """A minimal codec: one token per byte, followed by the special tokens."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def special_id(self, text: str) -> int:
        return 256 + SPECIAL_TOKENS.index(text)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


CODEC = Bytes()
FORMAT = NanochatFormat(CODEC)
EDIT = ToolCall(
    "call_1",
    "search_replace",
    arguments_text(path="stats.py", old='    return "ä"', new='    return "a\\n"'),
)


def shown(tokens: list[int]) -> str:
    text = b"".join(
        SPECIAL_TOKENS[token - 256].encode() if token >= 256 else bytes([token]) for token in tokens
    )
    return text.decode()


def read(tokens: list[int]) -> list[StreamEvent]:
    parser = FORMAT.parser()
    events = [event for token in tokens for event in parser.feed(token)]
    return [*events, *parser.finish()]


def folded(tokens: list[int]) -> tuple[Message, FinishReason, int]:
    fold = StreamFold()
    for event in read(tokens):
        fold.add(event)
    response = fold.response()
    return response.message, response.finish_reason, response.cut_calls


def test_a_conversation_with_a_call() -> None:
    rendered = FORMAT.render(
        [
            system("Be short."),
            user("fix it"),
            assistant("", ToolCall("call_1", "read_file", arguments_text(path="a.py"))),
            tool(ToolResult("call_1", "read_file", "1\tx = 1")),
            assistant("Done."),
        ]
    )
    assert shown(rendered.tokens) == (
        "<|bos|><|system_start|>Be short.<|system_end|><|user_start|>fix it<|user_end|>"
        '<|assistant_start|><|call_start|>{"name": "read_file", "arguments": {"path": "a.py"}}'
        "<|call_end|><|assistant_end|><|output_start|>1\tx = 1<|output_end|>"
        "<|assistant_start|>Done.<|assistant_end|>"
    )


def test_the_mask_is_what_the_model_says() -> None:
    messages = [user("hi"), assistant("Hello."), user("17*23"), assistant("391")]
    rendered = FORMAT.render(messages)
    own = [token for token, bit in zip(rendered.tokens, rendered.mask, strict=True) if bit]
    assert shown(own) == "Hello.<|assistant_end|>391<|assistant_end|>"
    silent = FORMAT.render(messages, silent={1})
    assert sum(silent.mask) == len("391") + 1


def test_an_in_stream_block_stays_in_its_turn() -> None:
    call = ToolCall("call_1", INLINE_TOOL, arguments_text(expression="17*23"))
    rendered = FORMAT.render(
        [
            user("17*23?"),
            assistant("It is ", call),
            tool(ToolResult("call_1", INLINE_TOOL, "391")),
            assistant("391."),
        ]
    )
    assert shown(rendered.tokens).endswith(
        "<|assistant_start|>It is <|python_start|>17*23<|python_end|>"
        "<|output_start|>391<|output_end|>391.<|assistant_end|>"
    )
    own = [token for token, bit in zip(rendered.tokens, rendered.mask, strict=True) if bit]
    assert shown(own) == "It is <|python_start|>17*23<|python_end|>391.<|assistant_end|>"


def test_an_answer_opens_a_turn() -> None:
    assert shown(FORMAT.render([user("hi")], answer=True).tokens).endswith("<|assistant_start|>")
    inline = ToolCall("call_1", INLINE_TOOL, arguments_text(expression="1+1"))
    open_turn = [user("1+1"), assistant("", inline), tool(ToolResult("call_1", INLINE_TOOL, "2"))]
    assert shown(FORMAT.render(open_turn, answer=True).tokens).count("<|assistant_start|>") == 1


def test_segments_join_to_the_whole() -> None:
    messages = [user("a"), assistant("b", EDIT), tool(ToolResult("call_1", "search_replace", "ok"))]
    segments = FORMAT.segments(messages)
    assert len(segments) == len(messages)
    assert [t for s in segments for t in s.tokens] == FORMAT.render(messages).tokens


@pytest.mark.parametrize(
    "message",
    [
        assistant("Plain text, ünïcode 🎉 and more."),
        assistant("", EDIT),
        assistant("First this.", EDIT),
        assistant("", ToolCall("call_1", "run_tests", "{}")),
        assistant(
            "",
            ToolCall("call_1", "grep", arguments_text(pattern="def f")),
            ToolCall("call_2", "read_file", arguments_text(path="a}.py", start=3)),
        ),
        assistant("", ToolCall("call_1", DECLINE_TOOL, arguments_text(reason="I can't."))),
    ],
)
def test_what_is_rendered_is_read_back(message: Message) -> None:
    rendered = FORMAT.render([user("x"), message])
    turn = rendered.tokens[rendered.tokens.index(CODEC.special_id("<|assistant_start|>")) + 1 :]
    found, reason, cut = folded(turn)
    assert found.text == message.text
    assert [(c.name, json.loads(c.arguments)) for c in found.calls] == [
        (c.name, json.loads(c.arguments)) for c in message.calls
    ]
    assert [c.arguments for c in found.calls] == [c.arguments for c in message.calls]
    assert reason is (FinishReason.TOOL_CALLS if message.calls else FinishReason.STOP)
    assert cut == 0


def test_deltas_come_as_the_tokens_do() -> None:
    rendered = FORMAT.render([user("x"), assistant("Now.", EDIT)])
    turn = rendered.tokens[rendered.tokens.index(CODEC.special_id("<|assistant_start|>")) + 1 :]
    events = read(turn)
    assert sum(isinstance(event, TextDelta) for event in events) == 4
    assert sum(isinstance(event, ToolCallDelta) for event in events) > 20
    assert isinstance(events[-1], Finished)


def test_an_in_stream_block_gives_no_events() -> None:
    turn = CODEC.encode("a")
    turn += [CODEC.special_id("<|python_start|>"), *CODEC.encode("1+1")]
    turn += [CODEC.special_id("<|python_end|>"), CODEC.special_id("<|output_start|>")]
    turn += [*CODEC.encode("2"), CODEC.special_id("<|output_end|>"), *CODEC.encode("b")]
    turn.append(CODEC.special_id("<|assistant_end|>"))
    assert folded(turn)[0].text == "ab"


def test_a_cut_call_is_reported_and_not_run() -> None:
    rendered = FORMAT.render([user("x"), assistant("", EDIT)])
    start = rendered.tokens.index(CODEC.special_id("<|assistant_start|>")) + 1
    message, reason, cut = folded(rendered.tokens[start:-8])
    assert (message.calls, reason, cut) == ((), FinishReason.LENGTH, 1)


@pytest.mark.parametrize(
    ("text", "name"), [("nonsense", "invalid_call"), ('{"name": "grep"}', "grep")]
)
def test_a_call_that_is_no_call_comes_out_as_written(text: str, name: str) -> None:
    turn = [CODEC.special_id("<|call_start|>"), *CODEC.encode(text)]
    turn += [CODEC.special_id("<|call_end|>"), CODEC.special_id("<|assistant_end|>")]
    (call,) = folded(turn)[0].calls
    assert (call.name, call.arguments) == (name, text)


def test_ordinary_text_is_never_a_mark() -> None:
    rendered = FORMAT.render([user("<|assistant_end|>")])
    assert rendered.tokens.count(CODEC.special_id("<|assistant_end|>")) == 0


def test_a_system_message_without_marks_of_its_own() -> None:
    class Nine(Bytes):
        """A codec with nanochat's nine special tokens."""

        def special_id(self, text: str) -> int:
            return 256 + SPECIAL_TOKENS[:9].index(text)

    form = NanochatFormat(Nine())
    messages = [system("Be short."), user("hi"), assistant("Yes."), user("and?")]
    assert shown(form.render(messages, answer=True).tokens) == (
        "<|bos|><|user_start|>Be short.\n\nhi<|user_end|>"
        "<|assistant_start|>Yes.<|assistant_end|>"
        "<|user_start|>and?<|user_end|><|assistant_start|>"
    )
