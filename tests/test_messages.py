"""Messages: their parts, their form in the journal, and the rules for a well-formed history."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.errors import InternalError
from agentcli.messages import (
    Image,
    Message,
    Outcome,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    aside,
    assistant,
    from_json,
    is_aside,
    result_from_json,
    result_to_json,
    system,
    to_json,
    tool,
    user,
    validate_history,
    without_result_images,
)

TEXT = st.text(max_size=20)
SCALAR = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
IMAGE = st.builds(Image, st.binary(max_size=20), TEXT, TEXT)
RESULT = st.builds(
    ToolResult,
    call_id=TEXT,
    name=TEXT,
    content=TEXT,
    outcome=st.sampled_from(Outcome),
    diff=TEXT,
    paths=st.lists(TEXT, max_size=3).map(tuple),
    data=st.dictionaries(TEXT, SCALAR, max_size=3),
    images=st.lists(IMAGE, max_size=2).map(tuple),
)
PART = (
    st.builds(Text, TEXT)
    | st.builds(Thinking, TEXT, TEXT, TEXT)
    | IMAGE
    | st.builds(ToolCall, TEXT, TEXT, TEXT)
    | RESULT
)
MESSAGE = st.builds(Message, st.sampled_from(Role), st.lists(PART, max_size=4).map(tuple))


def answer(call_id: str, content: str = "ok") -> Message:
    return tool(ToolResult(call_id, "grep", content))


# The journal's form


@given(MESSAGE)
def test_every_message_survives_the_journal(message: Message) -> None:
    assert from_json(json.loads(json.dumps(to_json(message)))) == message


@given(RESULT)
def test_every_result_survives_the_journal(result: ToolResult) -> None:
    assert result_from_json(json.loads(json.dumps(result_to_json(result)))) == result


def test_the_form_itself() -> None:
    message = assistant("I look.", ToolCall("1", "grep", '{"pattern": "x"}'))
    assert to_json(message) == {
        "role": "assistant",
        "parts": [
            {"kind": "text", "text": "I look."},
            {"kind": "call", "id": "1", "name": "grep", "arguments": '{"pattern": "x"}'},
        ],
    }
    assert to_json(answer("1", "")) == {
        "role": "tool",
        "parts": [
            {"kind": "result", "call_id": "1", "name": "grep", "content": "", "outcome": "ok"}
        ],
    }


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"role": "user"},
        {"role": "robot", "parts": []},
        {"role": "user", "parts": [{"kind": "song"}]},
        {"role": "user", "parts": [{"text": "no kind"}]},
        {"role": "tool", "parts": [{"kind": "result", "call_id": "1"}]},
    ],
)
def test_what_is_not_a_message_is_refused(value: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        from_json(value)


# Reading a message


def test_parts_of_a_message() -> None:
    message = Message(
        Role.ASSISTANT,
        (Thinking("hm, "), Text("a"), ToolCall("1", "x"), Thinking("so"), Text("b")),
    )
    assert message.text == "ab"
    assert message.thinking == "hm, so"
    assert [call.id for call in message.calls] == ["1"]


def test_an_answer_without_text_has_no_empty_part() -> None:
    assert assistant("", ToolCall("1", "x")).parts == (ToolCall("1", "x"),)
    assert assistant().parts == ()


def test_only_a_tool_message_has_a_result() -> None:
    assert answer("1").result.call_id == "1"
    with pytest.raises(InternalError, match="a user message has no tool result"):
        _ = user("hello").result


# Validation


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.SYSTEM, {Text}),
        (Role.USER, {Text, Image}),
        (Role.ASSISTANT, {Text, Thinking, ToolCall}),
        (Role.TOOL, {ToolResult}),
    ],
)
def test_each_role_has_its_parts(role: Role, allowed: set[type]) -> None:
    parts: list[Part] = [
        Text("a"),
        Thinking("a"),
        Image(b"", "image/png"),
        ToolCall("1", "x"),
        ToolResult("1", "x", ""),
    ]
    for part in parts:
        message = Message(role, (part,))
        if type(part) in allowed:
            message.validate()
        else:
            with pytest.raises(InternalError, match=f"a {role} message cannot hold"):
                message.validate()


def test_a_tool_message_has_exactly_one_result() -> None:
    result = ToolResult("1", "x", "")
    for parts in ((), (result, result)):
        with pytest.raises(InternalError, match=f"holds {len(parts)} results instead of one"):
            Message(Role.TOOL, parts).validate()


def test_the_images_of_a_result_are_of_types_that_providers_accept() -> None:
    drawing = Image(b"<svg/>", "image/svg+xml")
    with pytest.raises(InternalError, match=r"a result cannot hold image/svg\+xml"):
        tool(ToolResult("1", "x", "", images=(drawing,))).validate()
    tool(ToolResult("1", "x", "", images=(Image(b"RIFF", "image/webp"),))).validate()


def test_a_model_without_images_is_told_of_those_in_results() -> None:
    shot = Image(b"\x89PNG", "image/png", "a.png")
    messages = (
        user("look", shot),
        tool(ToolResult("1", "x", "[image a.png]", diff="d", images=(shot,))),
        tool(ToolResult("2", "x", "", images=(shot, shot))),
        tool(ToolResult("3", "x", "text")),
    )
    first, one, two, last = without_result_images(messages)
    assert (first, last) == (messages[0], messages[3])
    assert one.result == ToolResult(
        "1", "x", "[image a.png]\n[the image is not shown: this model accepts none]", diff="d"
    )
    assert two.result.content == "[the images are not shown: this model accepts none]"
    assert two.result.images == ()


def test_calls_of_one_answer_differ_in_their_ids() -> None:
    with pytest.raises(InternalError, match="two tool calls share an id"):
        assistant("", ToolCall("1", "a"), ToolCall("1", "b")).validate()


CALLS = assistant("", ToolCall("1", "grep"), ToolCall("2", "grep"))


@pytest.mark.parametrize(
    "history",
    [
        [],
        [system("a"), user("b")],
        [system("a"), system("b"), user("c"), assistant("d")],
        [user("a"), CALLS, answer("1"), answer("2"), assistant("done")],
        [user("a"), CALLS, answer("2"), answer("1"), user("go on")],
        [user("a"), CALLS, answer("1"), answer("2"), CALLS, answer("1"), answer("2")],
    ],
)
def test_well_formed_histories(history: list[Message]) -> None:
    validate_history(history)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([user("a"), CALLS], "calls without results at the end: 1, 2"),
        ([user("a"), CALLS, answer("1")], "calls without results at the end: 2"),
        ([user("a"), CALLS, answer("1"), user("b")], "message 3: calls without results: 2"),
        ([user("a"), answer("1")], "message 1: result for unknown call 1"),
        ([CALLS, answer("1"), answer("1")], "message 2: result for unknown call 1"),
        ([CALLS, answer("3")], "message 1: result for unknown call 3"),
        ([CALLS, answer("1"), answer("2"), answer("2")], "message 3: result for unknown call 2"),
        ([user("a"), Message(Role.USER, (ToolCall("1", "x"),))], "a user message cannot hold"),
    ],
)
def test_histories_that_no_provider_would_take(history: list[Message], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        validate_history(history)


# Usage


def test_usage_adds_up() -> None:
    one = Usage(100, 60, 10, 20, 5)
    assert one + one == Usage(200, 120, 20, 40, 10)
    assert (one.fresh_tokens, one.total_tokens) == (40, 120)
    assert one + Usage() == one


def test_an_aside_is_told_from_what_a_user_writes_in_brackets() -> None:
    assert is_aside(aside("a command was run"))
    assert not is_aside(user("[bug] the tests fail"))
