"""Fitting a conversation into a small window: the oldest results go first, as few as possible."""

from __future__ import annotations

from agentcli.llm.window import LEFT_OUT, fitted
from agentcli.messages import Message, ToolCall, ToolResult, assistant, tool, user


def size_of(message: Message) -> int:
    return len(message.result.content) if message.role == "tool" else 10


def conversation(*sizes: int) -> list[Message]:
    messages = [user("do it")]
    for number, size in enumerate(sizes):
        messages.append(assistant("", ToolCall(f"c{number}", "grep")))
        messages.append(tool(ToolResult(f"c{number}", "grep", "x" * size)))
    return messages


def run(messages: list[Message], room: int, short: frozenset[int] = frozenset()):  # type: ignore[no-untyped-def]
    sizes = [size_of(message) for message in messages]
    return fitted(messages, sizes, room, short=short, size_of=size_of)


def contents(messages: list[Message]) -> list[str]:
    return [m.result.content[:10] for m in messages if m.role == "tool"]


def test_what_fits_is_left_alone() -> None:
    messages = conversation(100, 100)
    assert run(messages, 1000) == (messages, frozenset())


def test_the_oldest_go_first_and_some_room_is_made() -> None:
    messages = conversation(400, 400, 400, 400)
    shown, short = run(messages, 1500)
    assert contents(shown) == [LEFT_OUT, LEFT_OUT, "x" * 10, "x" * 10]
    assert short == {2, 4}
    assert messages[2].result.content == "x" * 400  # the input is unchanged


def test_what_is_short_stays_short_as_the_conversation_grows() -> None:
    shown, short = run(conversation(400, 400, 100), 700)
    longer = conversation(400, 400, 100, 50)
    again, still = run(longer, 700, short)
    assert still == short == {2}
    assert again[: len(shown)] == shown  # so a cache can be extended


def test_the_newest_go_only_when_nothing_else_is_left() -> None:
    shown, short = run(conversation(300, 300, 300), 500)
    assert contents(shown) == [LEFT_OUT, LEFT_OUT, "x" * 10]
    assert short == {2, 4}


def test_what_cannot_fit_is_as_short_as_it_can_be() -> None:
    shown, _ = run(conversation(300, 300), 20)
    assert contents(shown) == [LEFT_OUT, LEFT_OUT]
