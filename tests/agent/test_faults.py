"""Transient tool errors, step deadlines, and the place that an error reports."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import (
    MemoryLog,
    RetryScheduled,
    RunFinished,
    Stage,
    StopReason,
    ToolFinished,
    ToolStarted,
    Warned,
)
from agentcli.agent.recovery import RetryConfig
from agentcli.errors import ConfigError, EnvironmentOpError, JournalError, Place
from agentcli.llm.client import LLMClient, ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Outcome, Thinking
from agentcli.tools.base import Tool, ToolContext, ToolKind
from agentcli.tools.registry import tool
from tests.agent.conftest import Make
from tests.server import Reply, ScriptedServer


def flaky(failures: int, code: str, kind: ToolKind, *, retryable: bool) -> Tool:
    """A tool that fails ``failures`` times, then returns its number of calls."""
    calls = 0

    async def touchy(context: ToolContext) -> str:
        """Fail at first."""
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise EnvironmentOpError("the file worker died during this call", code=code)
        return f"call {calls}"

    return tool(touchy, kind, retryable=retryable)


CALL = Reply(calls=[("touchy", {})], call_ids=["c1"])
QUICK = RetryConfig(attempts=3, first_delay_s=0.01)


async def test_an_idempotent_tool_is_tried_again(bench: Make) -> None:
    made = await bench(
        [CALL, "done"],
        [flaky(2, "EPIPE", ToolKind.READ, retryable=True)],
        tool_retry=QUICK,
    )
    result = await made.run()
    (finished,) = [e.result for e in made.log.events if isinstance(e, ToolFinished)]
    assert (finished.content, finished.outcome) == ("call 3", Outcome.OK)
    assert finished.data == {"attempts": 3}
    retries = [e for e in made.log.events if isinstance(e, RetryScheduled)]
    assert [(e.step, e.stage, e.attempt, e.tool) for e in retries] == [
        (1, Stage.ACT, 1, "touchy"),
        (1, Stage.ACT, 2, "touchy"),
    ]
    assert {e.call_id for e in retries} == {"c1"}
    assert (result.step_count, result.state.retries, result.state.tool_calls) == (2, 2, 1)


async def test_a_tool_that_stays_broken_is_told_to_the_model(bench: Make) -> None:
    broken = flaky(9, "EPIPE", ToolKind.READ, retryable=True)
    made = await bench([CALL, "done"], [broken], tool_retry=QUICK)
    await made.run()
    (finished,) = [e.result for e in made.log.events if isinstance(e, ToolFinished)]
    assert finished.outcome is Outcome.ERROR
    assert finished.data == {"error": "EnvironmentOpError", "code": "EPIPE", "attempts": 3}


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [("EPIPE", ToolKind.EDIT, False), ("ENOENT", ToolKind.READ, True)],
)
async def test_nothing_else_is_tried_again(
    bench: Make, code: str, kind: ToolKind, retryable: bool
) -> None:
    made = await bench([CALL, "done"], [flaky(1, code, kind, retryable=retryable)])
    result = await made.run()
    assert result.state.retries == 0
    assert sum(isinstance(e, ToolStarted) for e in made.log.events) == 1


async def test_a_worker_that_dies_is_started_anew(bench: Make) -> None:
    async def look(context: ToolContext) -> str:
        """Read a file."""
        return (await context.environment.read("f")).decode()

    made = await bench(
        [Reply(calls=[("look", {})]), "done"],
        [tool(look, ToolKind.READ, retryable=True)],
        tool_retry=QUICK,
    )
    (made.workspace / "f").write_text("still here")
    environment: Any = made.agent.context.environment
    await environment._process.kill()
    await made.run()
    (finished,) = [e.result for e in made.log.events if isinstance(e, ToolFinished)]
    assert finished.content == "still here"


async def test_a_step_has_its_deadline_in_every_stage(bench: Make) -> None:
    async def doze(context: ToolContext) -> str:
        """Sleep."""
        await asyncio.Event().wait()
        return ""

    for script, stage in (
        ([Reply(calls=[("doze", {})])], "act"),
        ([Reply(text="wait", stall_after=200)], "decide"),
        ([Reply(status=429, headers={"retry-after": "60"})], "decide"),
    ):
        for patience_s in (0.4, 8):  # on a busy machine, 0.4 s may end before the stage
            limits = RunLimits(step_time_s=patience_s)
            made = await bench(script, [tool(doze, ToolKind.READ)], limits=limits)
            result = await made.run()
            assert result.state.stop is StopReason.BUDGET_TIME
            if stage in result.state.detail:
                break
        assert result.state.detail == f"step 1 ({stage}) took more than {patience_s:g} s"


async def test_keep_alives_do_not_count_as_an_answer(bench: Make) -> None:
    beats = Reply(body=b": keep-alive\n\n" * 400, stream=True, split=14, pause_s=0.02)
    made = await bench([beats, beats], limits=RunLimits(silence_s=0.3))
    result = await made.run()
    assert result.exit_code == 3 and "sent nothing of its answer for 0.3 s" in result.state.detail
    assert result.state.retries == 1
    assert result.state.error == "RetryExhaustedError"
    assert result.state.place == Place(1, "decide", 2)


async def test_a_failure_says_where_it_arose(bench: Make) -> None:
    made = await bench([CALL, Reply(status=401)], [flaky(0, "", ToolKind.READ, retryable=True)])
    await made.run()
    (end,) = [e for e in made.log.events if isinstance(e, RunFinished)]
    assert (end.error, end.place) == ("AuthenticationError", Place(2, "decide", 1))


async def test_an_internal_failure_names_the_call(bench: Make) -> None:
    class Full(MemoryLog):
        async def append(self, event: Any, *, sync: bool = False) -> None:
            if isinstance(event, ToolFinished):
                raise JournalError("disk full")
            await super().append(event, sync=sync)

    tools = [flaky(0, "", ToolKind.READ, retryable=True)]
    made = await bench([CALL], tools, log=Full())
    result = await made.agent.start("go").result()
    assert result.exit_code == 5 and result.state.error == "JournalError"
    assert result.state.place == Place(1, "act", 1, "touchy", "c1")


@pytest.mark.parametrize(("name", "warned"), [("touchy", True), ("unheard_of", False)])
async def test_a_call_that_the_server_leaves_in_the_text_is_told(
    bench: Make, name: str, warned: bool
) -> None:
    """As from llama_cpp.server, which does not parse the syntax of Qwen's models."""
    text = f'I look.\n<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>'
    made = await bench([text], [flaky(0, "", ToolKind.READ, retryable=True)])
    result = await made.run()
    assert result.task_result == text
    warnings = [e.text for e in made.log.events if isinstance(e, Warned)]
    assert bool(warnings) is warned
    assert all("sent a tool call as text" in warning for warning in warnings)


class TestFallback:
    async def test_an_unusable_fallback_is_skipped(self, bench: Make) -> None:
        def missing() -> LLMClient:
            raise ConfigError("no key for it")

        with ScriptedServer([Reply(text="from the third")]) as other:
            info = ModelInfo("third", "local")
            made = await bench(
                [Reply(status=402)],
                fallbacks=[missing, lambda: OpenAIChat(info, "", other.url)],
            )
            result = await made.run()
            await made.agent.client.aclose()
        assert result.task_result == "from the third"
        assert [e.text for e in made.log.events if isinstance(e, Warned)] == [
            "a fallback cannot be used: no key for it"
        ]

    async def test_reasoning_stays_with_the_model_that_had_it(self, bench: Make) -> None:
        first = Reply(thinking="hm", calls=[("touchy", {})])
        with ScriptedServer([Reply(text="mine")]) as other:
            options: dict[str, Any] = {"reasoning_field": "reasoning_content"}
            info = ModelInfo("second", "deepseek")
            made = await bench(
                [first, Reply(status=402)],
                [flaky(0, "", ToolKind.READ, retryable=True)],
                fallbacks=[lambda: OpenAIChat(info, "", other.url, **options)],
            )
            result = await made.run()
            await made.agent.client.aclose()
            (asked,) = other.requests
        assert result.task_result == "mine"
        assert not any("reasoning_content" in message for message in asked.json["messages"])
        thought = [p for m in result.state.history for p in m.parts if isinstance(p, Thinking)]
        assert [part.text for part in thought] == ["hm"]  # also in the journal

    async def test_so_it_does_when_a_session_goes_on_with_another(self, bench: Make) -> None:
        first = await bench([Reply(thinking="hm", text="one")])
        await first.run()
        state = dataclasses.replace(first.agent.state, model="anthropic:other")
        second = await bench(["two"], state=state)
        await second.agent.start("again").result()
        assert not any(isinstance(p, Thinking) for m in second.agent.state.view for p in m.parts)
        assert [m["content"] for m in second.server.requests[0].json["messages"]] == [
            "do it",
            "one",
            "again",
        ]
