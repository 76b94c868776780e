"""Each message is encoded for the wire only once."""

from __future__ import annotations

import pytest

from agentcli.errors import InternalError
from agentcli.llm.wire_cache import WireCache
from agentcli.messages import (
    Message,
    ToolCall,
    ToolDefinition,
    ToolResult,
    assistant,
    system,
    tool,
    user,
)


class Counting:
    def __init__(self) -> None:
        self.encoded: list[Message] = []
        self.tools = 0
        self.cache = WireCache(self._one, self._tools)

    def _one(self, message: Message) -> bytes:
        self.encoded.append(message)
        return (message.text or "-").encode()

    def _tools(self, tools: object) -> bytes:
        self.tools += 1
        return b"tools"

    def wires(self, *messages: Message, conversation: str = "") -> bytes:
        encoded = self.cache.messages(conversation, messages)
        assert encoded.joined == b",".join(encoded.wires)
        assert len(encoded.sizes) == len(encoded.wires) == len(messages)
        return bytes(encoded.joined)


def test_a_step_encodes_what_is_new() -> None:
    counting = Counting()
    messages: tuple[Message, ...] = (system("s"), user("u"))
    for step in range(50):
        messages = (
            *messages,
            assistant(f"a{step}", ToolCall(f"c{step}", "t")),
            tool(ToolResult(f"c{step}", "t", "r")),
        )
        counting.wires(*messages)
    assert counting.encoded == list(messages)


def test_equal_messages_need_not_be_the_same_objects() -> None:
    counting = Counting()
    counting.wires(user("a"), assistant("b"))
    assert counting.wires(user("a"), assistant("b"), user("c")) == b"a,b,c"
    assert len(counting.encoded) == 3


def test_a_history_that_was_rewritten_or_cut() -> None:
    counting = Counting()
    a, b, c = user("a"), assistant("b"), user("c")
    assert counting.wires(a, b, c) == b"a,b,c"
    assert counting.wires(a, b) == b"a,b"
    assert counting.wires(a, assistant("x"), c) == b"a,x,c"
    assert counting.wires(user("new")) == b"new"
    assert len(counting.encoded) == 6


def test_conversations_do_not_disturb_each_other() -> None:
    counting = Counting()
    for end in range(1, 4):
        for name in "xyz":
            messages = [user(f"{name}{n}") for n in range(end)]
            counting.wires(*messages, conversation=name)
    assert len(counting.encoded) == 9


def test_calls_and_results_are_paired() -> None:
    counting = Counting()
    call = assistant("", ToolCall("1", "t"), ToolCall("2", "t"))
    one, two = tool(ToolResult("1", "t", "")), tool(ToolResult("2", "t", ""))
    counting.wires(call, two, one, user("x"))
    for wrong in ((call,), (call, one), (call, one, user("x")), (one,), (call, one, one, two)):
        with pytest.raises(InternalError):
            counting.wires(*wrong)
    assert counting.wires(call, one, two, user("y")) == b"-,-,-,y"


def test_tools_are_encoded_when_they_change() -> None:
    counting = Counting()
    one = (ToolDefinition("a", "d", {}),)
    same = (ToolDefinition("a", "d", {}),)
    for tools in (one, one, same, (), one):
        counting.cache.tools(tools)
    assert counting.tools == 3
