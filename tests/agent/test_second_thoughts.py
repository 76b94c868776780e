"""Second thoughts about requests that led to nothing, with real tools and test runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import (
    AnswerRejected,
    Compacted,
    MemoryLog,
    ModelUsed,
    SessionStarted,
    StopReason,
)
from agentcli.agent.kernel import Agent
from agentcli.agent.memory import MARK, WindowMemory
from agentcli.agent.module import AgentModule
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ModelError
from agentcli.llm.client import ChatRequest, ChatResponse, ModelInfo, StreamEvent
from agentcli.llm.replay import Replay, events_of
from agentcli.messages import FinishReason, ToolCall, Usage, assistant
from agentcli.text import BETWEEN_OPTIONS
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.decline import decline_tool
from agentcli.tools.registry import Registry
from agentcli.tools.verify import verify
from tests.running import pytest_ini

CALC = """LIMIT = 5


def area(width, depth=2):
    return width * depth


class Pump:
    def __init__(self, speed):
        self.power: int = speed  # not the flow
"""
FILES = {"calc.py": CALC, "test_calc.py": "def test_one():\n    pass\n", **pytest_ini()}
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
        self.asked: list[ChatRequest] = []

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        limited = any("new" in tool.text_of for tool in request.tools)
        if request.reconsidered or limited:
            self.asked_again.append(request)
            for event in events_of(self.second):
                yield event
            return
        self.asked.append(request)
        async for event in super().stream(request):
            yield event


Begin = Callable[..., Awaitable[tuple[Agent, MemoryLog]]]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    async with AsyncExitStack() as stack:

        async def make(model: Model, **options: Any) -> tuple[Agent, MemoryLog]:
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
                check=verify,
                **options,
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


async def offered(request: ChatRequest) -> list[str]:
    """What a local model may search for."""
    [grep] = [tool for tool in request.tools if tool.name == "grep"]
    assert grep.text_of == {"pattern": ""} and request.argument_text is not None
    assert await request.argument_text("read_file", {"path": "calc.py"}) is None
    return str(await request.argument_text("grep", {})).split(BETWEEN_OPTIONS)


async def test_after_a_search_for_nothing_a_name_of_the_request_is_searched(begin: Begin) -> None:
    first, missed = call("grep", pattern="def ares"), said("There is no `ares`.")
    found = call("grep", pattern="def area")
    model = Model(first, missed, said("It is in calc.py."), second=found)
    agent, log = await begin(model)
    result = await agent.start("where are the flow and area, the Pump's power or LIMIT?").result()
    assert result.state.stop is StopReason.FINAL and result.task_result == "It is in calc.py."
    patterns = await offered(model.asked_again[0])
    names = ("area", "Pump", "power", "LIMIT")
    assert patterns == [f"def {name}" for name in names]
    # From then on, the model sees only what it found; the history has everything.
    last = [part for message in model.asked[-1].messages for part in message.parts]
    assert [part.name for part in last if isinstance(part, ToolCall)] == ["grep"]
    made = [one.arguments for message in result.state.history for one in message.calls]
    assert made == [first.message.calls[0].arguments, found.message.calls[0].arguments]
    [left_out] = [event for event in log.events if isinstance(event, Compacted)]
    assert left_out.tokens_after < left_out.tokens_before


async def test_what_is_left_out_is_not_remembered(begin: Begin) -> None:
    first, missed = call("grep", pattern="def ares"), said("There is no `ares`.")
    answers = (first, missed, said("It is in calc.py."))
    model = Model(*answers, second=call("grep", pattern="def area"))
    agent, _ = await begin(model, memory=WindowMemory())
    result = await agent.start("where is area?").result()
    assert not [message for message in result.state.view if message.text.startswith(MARK)]
    assert len(result.state.compactions) == 1


async def test_nothing_is_searched_twice(begin: Begin) -> None:
    first, missed = call("grep", pattern="def LIMIT"), said("There is no `LIMIT`.")
    model = Model(first, missed, second=first)
    agent, _ = await begin(model)
    result = await agent.start("where is LIMIT, with area?").result()
    assert result.task_result == missed.message.text
    assert await offered(model.asked_again[0]) == ["def area"]


async def test_a_file_without_classes_has_none(begin: Begin) -> None:
    first = call("grep", pattern="class ", path="test_calc.py")
    model = Model(first, DONE, second=call("grep", pattern="area"))
    agent, _ = await begin(model)
    result = await agent.start("each class in test_calc.py, not area or __init__").result()
    assert result.task_result == DONE.message.text
    assert all(tool.text_of.get("pattern") is None for tool in model.asked_again[0].tools)


async def test_without_a_known_name_the_search_is_free(begin: Begin) -> None:
    model = Model(call("grep", pattern="ares"), DONE, second=call("grep", pattern="other"))
    agent, _ = await begin(model)
    assert (await agent.start("where is the flow?").result()).task_result == DONE.message.text
    assert all(tool.text_of.get("pattern") is None for tool in model.asked_again[0].tools)


def rename(old: str, new: str) -> ChatResponse:
    return call("search_replace", path="calc.py", old=old, new=new)


async def test_an_edit_brings_in_only_names_of_the_message(begin: Begin, tmp_path: Path) -> None:
    wrong = rename("def area(width, depth=2):", "def tree(width, depth=2):")
    right = rename("def area(width, depth=2):", "def region(width, depth=2):")
    model = Model(wrong, said("Renamed."), second=right)
    agent, log = await begin(model)
    result = await agent.start("please call area region").result()
    assert "def region(" in (tmp_path / "calc.py").read_text()
    [again] = model.asked_again
    [edit] = [tool for tool in again.tools if tool.name == "search_replace"]
    assert edit.text_of == {"path": "", "old": "path", "new": ""} and again.argument_text
    written = {"path": "calc.py", "old": "def area(width):"}
    options = str(await again.argument_text("search_replace", written)).split(BETWEEN_OPTIONS)
    assert options == [f"def {name}(width):" for name in ("please", "call", "region")]
    [rejected] = [event for event in log.events if isinstance(event, AnswerRejected)]
    assert rejected.usage == USAGE and result.state.usage == USAGE + USAGE + USAGE


async def test_a_rename_goes_on_as_it_has_begun(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text("from calc import area\n\narea(1)\narea(1)\n")
    old = "import area\n\narea(1)\na"  # part of the next line makes it unique

    def edited(new: str) -> ChatResponse:
        return call("search_replace", path="use.py", old=old, new=new)

    right = edited("import region\n\nregion(1)\na")
    for wrong in ("import region\n\nregion(1)\nregion(2)\na", "import area\n\na", "import tree"):
        (tmp_path / "calc.py").write_text(CALC)
        (tmp_path / "use.py").write_text("from calc import area\n\narea(1)\narea(1)\n")
        first = rename("def area(width, depth=2):", "def region(width, depth=2):")
        model = Model(first, edited(wrong), said("Renamed."), second=right)
        agent, _ = await begin(model)
        await agent.start("please call area region").result()
        assert (
            tmp_path / "use.py"
        ).read_text() == "from calc import region\n\nregion(1)\narea(1)\n"
        [again] = model.asked_again
        assert again.argument_text is not None
        written = {"path": "use.py", "old": old}
        assert (
            await again.argument_text("search_replace", written) == "import region\n\nregion(1)\na"
        )


@pytest.mark.parametrize(
    "edit",
    [
        rename("def area(width, depth=2):", "def region(width, depth=2):"),
        rename("LIMIT = 5", "LIMIT = 6"),
        rename("class Pump:", "class Machine:"),  # nothing of it is in the message
        rename("def area(width, depth=2):", "def area(width, depth=2) -> int:"),
        rename("return width * depth", "return tree * depth"),
        rename("LIMIT = 5\n\n\ndef area", "LIMIT = 5\n\n\ndef tree"),
    ],
)
async def test_other_edits_stand(begin: Begin, edit: ChatResponse) -> None:
    model = Model(edit, said("Done."), second=DECLINED)
    agent, log = await begin(model)
    await agent.start("please call area region").result()
    assert not model.asked_again
    assert not [event for event in log.events if isinstance(event, AnswerRejected)]


async def test_after_a_failed_test_any_name_may_come_in(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "test_calc.py").write_text("def test_one():\n    assert False\n")
    model = Model(TESTS, rename("return width * depth", "return tree"), DONE, second=DECLINED)
    agent, _ = await begin(model)
    await agent.start("the width of area is wrong").result()
    assert not model.asked_again


async def test_a_second_answer_that_is_no_better_is_not_used(begin: Begin, tmp_path: Path) -> None:
    first = rename("def area(width, depth=2):", "def tree(width, depth=2):")
    model = Model(first, said("Renamed."), second=rename("LIMIT = 5", "LIMIT = tree"))
    agent, log = await begin(model)
    result = await agent.start("please call area region").result()
    assert "def tree(" in (tmp_path / "calc.py").read_text() and len(model.asked_again) == 1
    assert [event.usage for event in log.events if isinstance(event, ModelUsed)] == [USAGE]
    assert result.state.usage == USAGE + USAGE + USAGE


async def test_there_is_none_beyond_the_budget(begin: Begin) -> None:
    model = Model(TESTS, DONE, second=DECLINED)
    used = USAGE.input_tokens + USAGE.output_tokens
    room = 16 + USAGE.input_tokens  # for the shortest answer
    agent, _ = await begin(model, limits=RunLimits(tokens=used + room + 1))
    result = await agent.start("cache the results").result()
    assert result.task_result == DONE.message.text and not model.asked_again


async def test_there_is_none_about_what_agentcli_said(begin: Begin) -> None:
    model = Model(DONE, TESTS, DONE, second=DECLINED)
    agent, _ = await begin(model)
    check = "test -e ran || ! touch ran"
    result = await agent.start("cache the results", checks=[check]).result()
    assert result.task_result == DONE.message.text and not model.asked_again


async def test_an_error_leaves_the_first_answer(begin: Begin) -> None:
    class Failing(Model):
        async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
            if request.reconsidered:
                raise ModelError("out of memory")
            async for event in super().stream(request):
                yield event

    agent, _ = await begin(Failing(TESTS, DONE, second=DECLINED))
    result = await agent.start("cache the results").result()
    assert result.state.stop is StopReason.FINAL and result.task_result == DONE.message.text
