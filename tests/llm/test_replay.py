"""Playing back recorded answers."""

from __future__ import annotations

import pytest

from agentcli.errors import ProviderError
from agentcli.llm.client import ChatRequest, ChatResponse, ModelInfo, chat
from agentcli.llm.replay import Replay
from agentcli.messages import (
    FinishReason,
    Message,
    Role,
    Text,
    Thinking,
    ToolCall,
    Usage,
    assistant,
    user,
)

INFO = ModelInfo("fix.jsonl", "replay")
ASK = ChatRequest((user("x"),))
ANSWERS = [
    ChatResponse(
        Message(
            Role.ASSISTANT,
            (
                Thinking("hm", "sig", "data"),
                Text("Two calls. "),
                ToolCall("c1", "a", '{"x": 1}'),
                Text("And"),
                ToolCall("c2", "b", "not json"),
            ),
        ),
        FinishReason.TOOL_CALLS,
        Usage(10, 5, 1, 7, 2),
    ),
    ChatResponse(Message(Role.ASSISTANT, (Thinking("only"),)), FinishReason.STOP, Usage()),
    ChatResponse(assistant("cut"), FinishReason.LENGTH, Usage(1, 0, 0, 1, 0)),
    ChatResponse(assistant(""), FinishReason.STOP, Usage()),
]


async def test_answers_come_back_as_they_were() -> None:
    client = Replay(INFO, ANSWERS)
    assert [await chat(client, ASK) for _ in ANSWERS] == ANSWERS


async def test_the_end_of_the_recording() -> None:
    client = Replay(INFO, ANSWERS[2:3], source="fix.jsonl")
    assert (await client.count_tokens(ASK)).tokens == 1
    await chat(client, ASK)
    with pytest.raises(ProviderError, match=r"fix\.jsonl holds 1 answer, ") as raised:
        await chat(client, ASK)
    assert "other results" in str(raised.value.hint)
    await client.aclose()


async def test_a_recording_that_was_cut_short_says_so() -> None:
    client = Replay(INFO, ANSWERS[:1])
    await chat(client, ASK)
    with pytest.raises(ProviderError) as raised:
        await chat(client, ASK)
    assert raised.value.hint == "It was cut short there"
