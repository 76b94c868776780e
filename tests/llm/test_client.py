"""StreamFold: folding a stream gives the whole answer, however the stream is split."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.errors import StreamBrokenError
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    Finished,
    ModelInfo,
    StreamEvent,
    StreamFold,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageDelta,
    chat,
)
from agentcli.llm.tokens import TokenCount
from agentcli.messages import FinishReason, Message, Text, Thinking, ToolCall, Usage, assistant

STOP = Finished(FinishReason.STOP)
CALLS = Finished(FinishReason.TOOL_CALLS)
LENGTH = Finished(FinishReason.LENGTH)


def fold(*events: StreamEvent) -> ChatResponse:
    folded = StreamFold()
    for event in events:
        folded.add(event)
    return folded.response()


def call(index: int, *pieces: str, end: bool = True) -> list[StreamEvent]:
    events: list[StreamEvent] = [ToolCallStart(index, f"id{index}", "grep")]
    events += [ToolCallDelta(index, piece) for piece in pieces]
    return [*events, ToolCallEnd(index)] if end else events


def test_text_deltas_make_one_text() -> None:
    response = fold(TextDelta("Hel"), TextDelta(""), TextDelta("lo"), UsageDelta(Usage(3, 0)), STOP)
    assert response == ChatResponse(assistant("Hello"), FinishReason.STOP, Usage(3, 0))


def test_an_empty_answer_has_no_parts() -> None:
    assert fold(TextDelta(""), STOP).message.parts == ()
    assert fold(STOP).message.parts == ()


def test_the_last_usage_holds() -> None:
    events = [UsageDelta(Usage(1, 0, 0, 1)), UsageDelta(Usage(5, 2, 0, 7))]
    assert fold(*events, STOP).usage == Usage(5, 2, 0, 7)


def test_parallel_calls_are_told_apart_by_their_index() -> None:
    response = fold(
        ToolCallStart(0, "a", "grep"),
        ToolCallStart(1, "b", "glob"),
        ToolCallDelta(1, '{"pattern"'),
        ToolCallDelta(0, '{"pattern": '),
        ToolCallDelta(1, ': "*"}'),
        ToolCallDelta(0, '"x"}'),
        ToolCallEnd(1),
        ToolCallEnd(0),
        CALLS,
    )
    assert response.message.calls == (
        ToolCall("a", "grep", '{"pattern": "x"}'),
        ToolCall("b", "glob", '{"pattern": "*"}'),
    )
    assert response.cut_calls == 0


def test_parts_stand_in_the_order_in_which_they_were_said() -> None:
    response = fold(
        ThinkingDelta("hm"),
        ThinkingDelta("", signature="signed"),
        TextDelta("I look."),
        *call(0, "{}"),
        TextDelta("And then"),
        *call(1, "{}"),
        CALLS,
    )
    assert response.message.parts == (
        Thinking("hm", "signed"),
        Text("I look."),
        ToolCall("id0", "grep", "{}"),
        Text("And then"),
        ToolCall("id1", "grep", "{}"),
    )


def test_a_signature_closes_its_block() -> None:
    response = fold(
        ThinkingDelta("one", signature="s1"),
        ThinkingDelta("two"),
        ThinkingDelta("", data="opaque"),
        ThinkingDelta("unsigned"),
        STOP,
    )
    assert response.message.parts == (
        Thinking("one", "s1"),
        Thinking("two", "", "opaque"),
        Thinking("unsigned"),
    )


def test_arguments_stay_as_the_model_wrote_them() -> None:
    assert fold(*call(0, '{"a": ', "oops"), CALLS).message.calls[0].arguments == '{"a": oops'
    assert fold(*call(0), CALLS).message.calls[0].arguments == ""


def test_a_call_that_never_ended_is_counted_and_left_out() -> None:
    response = fold(TextDelta("ok"), *call(0, "{}"), *call(1, '{"pat', end=False), CALLS)
    assert response.message == assistant("ok", ToolCall("id0", "grep", "{}"))
    assert response.cut_calls == 1


def test_the_token_limit_makes_the_last_call_suspect_even_if_it_was_ended() -> None:
    response = fold(*call(0, "{}"), *call(1, '{"content": "half'), LENGTH)
    assert [made.id for made in response.message.calls] == ["id0"]
    assert response.cut_calls == 1
    assert response.finish_reason is FinishReason.LENGTH


def test_the_token_limit_in_text_after_a_call_leaves_the_call() -> None:
    response = fold(*call(0, "{}"), TextDelta("and th"), LENGTH)
    assert len(response.message.calls) == 1 and response.cut_calls == 0


def test_a_stream_without_its_end_mark_is_broken() -> None:
    with pytest.raises(StreamBrokenError, match="ended before its end mark"):
        fold(TextDelta("half"))


class Recorded:
    """A client that always streams the same answer."""

    info = ModelInfo("recorded", "test")

    def __init__(self, events: Sequence[StreamEvent]) -> None:
        self.events = events

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        for event in self.events:
            yield event

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        return TokenCount(0, exact=True)

    def size_of(self, message: Message) -> int:
        return 0

    async def aclose(self) -> None:
        pass


async def test_chat_is_the_fold_of_the_stream() -> None:
    events = [TextDelta("a"), *call(0, "{", "}"), UsageDelta(Usage(1)), CALLS]
    assert await chat(Recorded(events), ChatRequest(())) == fold(*events)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts})
    ends = [*places, len(text)]
    return [text[start:end] for start, end in zip([0, *places], ends, strict=True)]


@given(st.text(max_size=20), st.text(max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_how_a_stream_is_cut_up_makes_no_difference(
    text: str, arguments: str, cuts: list[int]
) -> None:
    def whole(split: bool) -> Message:
        texts = pieces(text, cuts) if split else [text]
        parts = pieces(arguments, cuts) if split else [arguments]
        return fold(*(TextDelta(piece) for piece in texts), *call(0, *parts), CALLS).message

    assert whole(split=True) == whole(split=False)
