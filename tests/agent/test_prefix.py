"""A broken prompt prefix is reported with its cause; there are no false reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentcli.agent.events import PrefixBroken
from agentcli.agent.prefix import Prefix
from agentcli.agent.state import AgentState
from agentcli.llm.client import ChatRequest, ModelInfo, Reuse
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Message, ToolDefinition, Usage, assistant, system, user
from tests.agent.conftest import Bench, Make
from tests.server import Reply

TOOLS = (ToolDefinition("a", "A.", {}),)
START = (system("s" * 4000), user("u" * 4000))
REQUEST = ChatRequest(START, TOOLS)
STATE = AgentState(running_step=3)


def client(model: str = "m") -> OpenAIChat:
    return OpenAIChat(ModelInfo(model, "test"), "", "http://127.0.0.1:9/v1")


def after_one(usage: Usage | None = None) -> Prefix:
    """The state after one answered request."""
    prefix = Prefix()
    assert prefix.broken(client(), REQUEST, STATE) is None
    assert prefix.answered(usage or Usage(2000, 0, 0, 10), STATE) is None
    return prefix


def more(*messages: Message) -> ChatRequest:
    return ChatRequest((*START, *messages), TOOLS)


def test_what_goes_on_breaks_nothing() -> None:
    prefix = after_one()
    answered = more(assistant("yes"), user("go on"))
    assert prefix.broken(client(), answered, STATE) is None
    again = ChatRequest((*answered.messages, assistant("ok")), (ToolDefinition("a", "A.", {}),))
    assert prefix.broken(client(), again, STATE) is None


@pytest.mark.parametrize(
    ("request_", "model", "state", "cause", "lost"),
    [
        (REQUEST, "other", STATE, "model", 2010),
        (ChatRequest(START, (*TOOLS, ToolDefinition("b", "B.", {}))), "m", STATE, "tools", 2010),
        (ChatRequest((system("new"), *START[1:]), TOOLS), "m", STATE, "prompt", 2010),
        (ChatRequest((START[0], user("other")), TOOLS), "m", STATE, "history", 1004),
        (
            ChatRequest((START[0], user("other")), TOOLS),
            "m",
            replace(STATE, compactions=(object(),)),  # type: ignore[arg-type]
            "compaction",
            1004,
        ),
    ],
    ids=["model", "tools", "prompt", "history", "compaction"],
)
def test_causes(
    request_: ChatRequest, model: str, state: AgentState, cause: str, lost: int
) -> None:
    prefix = after_one()
    assert prefix.broken(client(model), request_, state) == PrefixBroken(3, cause, lost)
    assert prefix.broken(client(model), request_, state) is None  # reported only once


def test_a_cache_that_no_longer_holds_it() -> None:
    prefix = after_one(Usage(20_000, 0, 20_000, 10))
    prefix.broken(client(), more(assistant("x"), user("y")), STATE)
    assert prefix.answered(Usage(20_100, 500, 0, 10), STATE) == PrefixBroken(3, "expired", 19_510)


def test_a_local_cache_reports_the_cause() -> None:
    class Own(OpenAIChat):
        reuse = Reuse(20_010, 500, "the template rewrites an earlier answer")

    own = Own(ModelInfo("m", "test"), "", "http://127.0.0.1:9/v1")
    prefix = after_one(Usage(20_000, 10, 0, 10))
    prefix.broken(client(), more(assistant("x"), user("y")), STATE)
    told = prefix.answered(Usage(20_100, 500, 0, 10), STATE, own)
    assert told is not None and told.cause == "the template rewrites an earlier answer"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Usage(20_000, 0, 0, 10), Usage(20_100, 0, 0, 10)),  # no cache at all
        (Usage(20_000, 0, 20_000, 10), Usage(20_100, 19_900, 0, 10)),  # a cache that works
        (Usage(900, 0, 900, 10), Usage(1000, 0, 0, 10)),  # too short to be cached
    ],
    ids=["no cache", "a hit", "short"],
)
def test_no_false_reports(first: Usage, then: Usage) -> None:
    prefix = after_one(first)
    prefix.broken(client(), more(assistant("x"), user("y")), STATE)
    assert prefix.answered(then, STATE) is None


def test_a_reported_break_is_not_reported_as_expired() -> None:
    prefix = after_one(Usage(20_000, 0, 20_000, 10))
    assert prefix.broken(client(), ChatRequest(START, ()), STATE)
    assert prefix.answered(Usage(20_100, 0, 20_100, 10), STATE) is None


def causes(made: Bench) -> list[str]:
    return [event.cause for event in made.log.events if isinstance(event, PrefixBroken)]


async def test_a_fallback_reads_everything_anew(bench: Make) -> None:
    ok = Reply(text="fine", usage=Usage(5000, 0, 0, 10))
    made = await bench([ok, Reply(status=401), ok])
    server = made.server

    def other() -> Any:
        return OpenAIChat(ModelInfo("second", "openai"), "sk", server.url)

    made.agent._answering._fallbacks.append(other)
    await made.agent.start("one").result()
    await made.agent.start("two").result()
    assert causes(made) == ["model"]
    await made.agent.client.aclose()


async def test_turns_of_a_chat_break_nothing(bench: Make) -> None:
    made = await bench(["one", "two", "three"])
    for turn in ("a", "b", "c"):
        await made.agent.start(turn).result()
    assert causes(made) == []
