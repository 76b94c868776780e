"""Second thoughts about requests that led to nothing, with real tools and test runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agentcli.agent.events import AnswerRejected, MemoryLog, SessionStarted, StopReason
from agentcli.agent.kernel import Agent
from agentcli.agent.module import AgentModule
from agentcli.environments.host import HostEnvironment
from agentcli.llm.client import ChatRequest, ChatResponse, ModelInfo, StreamEvent
from agentcli.llm.replay import Replay, events_of
from agentcli.messages import FinishReason, ToolCall, Usage, assistant
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.decline import decline_tool
from agentcli.tools.registry import Registry
from tests.running import pytest_ini

FILES = {"calc.py": "LIMIT = 5\n", "test_calc.py": "def test_one():\n    pass\n", **pytest_ini()}
USAGE = Usage(10, 0, 0, 3)


def said(text: str) -> ChatResponse:
    return ChatResponse(assistant(text), FinishReason.STOP, USAGE)


def call(tool: str, **arguments: str) -> ChatResponse:
    made = ToolCall("c", tool, json.dumps(arguments))
    return ChatResponse(assistant("", made), FinishReason.TOOL_CALLS, USAGE)


TESTS, DECLINED = call("run_tests"), call("decline", reason="too hard")
DONE = said("All tests pass; I changed nothing.")


class Model(Replay):
    """Plays back its answers; ``second`` is the answer to requests that are reconsidered."""

    def __init__(self, *answers: ChatResponse, second: ChatResponse, able: bool = True) -> None:
        super().__init__(ModelInfo("scripted", "replay", reconsiders=able), answers)
        self.second = second
        self.asked_again: list[ChatRequest] = []

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        if request.reconsidered:
            self.asked_again.append(request)
            for event in events_of(self.second):
                yield event
            return
        async for event in super().stream(request):
            yield event


Begin = Callable[[Model], Awaitable[tuple[Agent, MemoryLog]]]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    async with AsyncExitStack() as stack:

        async def make(model: Model) -> tuple[Agent, MemoryLog]:
            environment = HostEnvironment(tmp_path)
            await environment.start()
            stack.push_async_callback(environment.aclose)
            log = MemoryLog()
            agent = Agent(
                client=model,
                tools=Registry([*builtin_tools(), decline_tool()]),
                context=ToolContext(environment),
                log=log,
                session=SessionStarted("s", str(tmp_path), "m", "auto", "none", (), "0"),
                module=AgentModule(),
            )
            return agent, log

        yield make


async def test_a_request_is_declined_if_there_was_nothing_to_repair(begin: Begin) -> None:
    model = Model(TESTS, DONE, second=DECLINED)
    agent, log = await begin(model)
    result = await agent.start("cache the results").result()
    assert result.state.stop is StopReason.DECLINED and result.task_result == "too hard"
    [asked] = model.asked_again
    assert [message.text for message in asked.messages] == ["cache the results"]
    [rejected] = [event for event in log.events if isinstance(event, AnswerRejected)]
    assert rejected.usage == USAGE and result.state.usage == USAGE + USAGE + USAGE


@pytest.mark.parametrize("pattern", ["nothing", "CSV"])
async def test_a_request_is_declined_if_nothing_was_found(begin: Begin, pattern: str) -> None:
    model = Model(call("grep", pattern=pattern), said("There is none."), second=DECLINED)
    agent, _ = await begin(model)
    result = await agent.start("can we have CSV import").result()
    assert result.state.stop is StopReason.DECLINED


async def test_the_answer_stands_if_the_model_would_do_the_same_again(begin: Begin) -> None:
    model = Model(TESTS, DONE, second=TESTS)
    agent, _ = await begin(model)
    result = await agent.start("fix it").result()
    assert result.state.stop is StopReason.FINAL and result.task_result == DONE.message.text
    assert len(model.asked_again) == 1 and result.state.usage == USAGE + USAGE + USAGE


@pytest.mark.parametrize(
    "first",
    [
        call("grep", pattern="LIMIT"),
        call("read_file", path="calc.py"),
        call("write_file", path="calc.py", content="LIMIT = 6\n"),
        call("run_tests", args="none.py"),
    ],
)
async def test_an_answer_that_rests_on_something_stands(begin: Begin, first: ChatResponse) -> None:
    model = Model(first, TESTS, DONE, second=DECLINED)
    agent, _ = await begin(model)
    result = await agent.start("fix it").result()
    assert result.task_result == DONE.message.text and not model.asked_again


async def test_an_answer_without_calls_stands(begin: Begin) -> None:
    model = Model(DONE, second=DECLINED)
    agent, _ = await begin(model)
    assert (await agent.start("hello").result()).state.stop is StopReason.FINAL
    assert not model.asked_again


async def test_other_models_are_not_asked_again(begin: Begin) -> None:
    model = Model(TESTS, DONE, second=DECLINED, able=False)
    agent, _ = await begin(model)
    assert (await agent.start("fix it").result()).state.stop is StopReason.FINAL
    assert not model.asked_again


async def test_only_what_followed_the_last_message_counts(begin: Begin) -> None:
    model = Model(call("read_file", path="calc.py"), DONE, TESTS, DONE, second=DECLINED)
    agent, _ = await begin(model)
    await agent.start("what is LIMIT?").result()
    result = await agent.start("cache the results").result()
    assert result.state.stop is StopReason.DECLINED
    texts = [message.text for message in model.asked_again[0].messages]
    assert texts[0] == "what is LIMIT?" and texts[-1] == "cache the results"
