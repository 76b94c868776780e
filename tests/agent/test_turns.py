"""The turns of a chat: several runs of one session, each continuing the previous ones."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import (
    Event,
    ModelChanged,
    RunFinished,
    StopReason,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.module import CodingAgent
from agentcli.agent.run import Run
from agentcli.agent.state import AgentState
from agentcli.errors import ConfigError, UsageError
from agentcli.llm.client import LLMClient, ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Outcome, Role, validate_history
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from tests.agent.conftest import Bench, Make
from tests.agent.test_kernel import ECHO, SHELL, WRITE, call
from tests.server import Reply, ScriptedServer


def check(made: Bench) -> AgentState:
    """Check the invariants after any number of turns: a valid history that the log reproduces."""
    state = made.agent.state
    validate_history(tuple(state.history))
    assert fold_all(made.log.events) == state
    assert made.server.faults == []
    return state


def asked(made: Bench) -> list[list[Any]]:
    return [request.json["messages"] for request in made.server.requests]


async def until(run: Run, kind: type[Event]) -> None:
    async for event in run:
        if isinstance(event, kind):
            return


async def test_turns_share_one_history_whose_beginning_never_changes(make_chat: Make) -> None:
    script = ["Hello.", Reply(calls=[call("echo", text="x")]), "It says x.", "Bye."]
    made = await make_chat(script, [ECHO])
    for task, answer in [("hi", "Hello."), ("echo x", "It says x."), ("bye", "Bye.")]:
        result = await made.agent.start(task).result()
        assert result.task_result == answer and result.state.task == task
        check(made)
    for earlier, later in itertools.pairwise(asked(made)):
        assert later[: len(earlier)] == earlier
    ends = [event.reason for event in made.log.events if isinstance(event, RunFinished)]
    assert ends == [StopReason.FINAL] * 3
    assert [message.role for message in made.agent.state.history].count(Role.SYSTEM) == 1


async def test_each_turn_has_its_own_budget_and_the_session_the_sum(bench: Make) -> None:
    looking = Reply(calls=[call("echo", text="x")])
    made = await bench([looking, looking, looking, "done"], [ECHO], limits=RunLimits(max_steps=2))
    first = await made.agent.start("look").result()
    assert first.state.stop is StopReason.BUDGET_STEPS and first.state.used.steps == 2
    second = await made.agent.start("go on").result()
    assert second.task_result == "done" and second.state.used.steps == 2
    state = check(made)
    assert state.step == 4 and state.usage.total_tokens == 440


async def test_a_turn_cannot_begin_within_another(bench: Make) -> None:
    made = await bench([Reply(text="slow", delay_s=0.2), "next"])
    run = made.agent.start("one")
    with pytest.raises(UsageError, match="has not ended"):
        made.agent.start("two")
    assert (await run.result()).task_result == "slow"
    assert (await made.agent.start("two").result()).task_result == "next"


class TestCancelled:
    async def test_while_a_tool_runs(self, bench: Make) -> None:
        calls = [call("shell", command="sleep 60"), call("write", path="f", text="x")]
        made = await bench([Reply(calls=calls), "Never mind."], [SHELL, WRITE])
        run = made.agent.start("wait")
        await until(run, ToolStarted)
        run.cancel()
        assert (await run.result()).state.stop is StopReason.CANCELLED
        results = [m.result.outcome for m in check(made).history if m.role is Role.TOOL]
        assert results == [Outcome.CANCELLED, Outcome.SKIPPED]
        assert (await made.agent.start("forget it").result()).task_result == "Never mind."
        assert [m["role"] for m in asked(made)[1]] == ["user", "assistant", "tool", "tool", "user"]
        assert check(made).stop is StopReason.FINAL

    async def test_while_the_model_answers(self, bench: Make) -> None:
        made = await bench([Reply(text="a long story", stall_after=250), "Short."])
        run = made.agent.start("tell")
        while not made.server.requests:
            await asyncio.sleep(0.01)
        run.cancel()
        await run.result()
        assert (await made.agent.start("shorter").result()).task_result == "Short."
        assert [m["content"] for m in asked(made)[1]] == ["tell", "shorter"]
        check(made)

    @pytest.mark.parametrize("moment", range(1, 30, 4))
    async def test_at_any_event_the_next_turn_works(self, bench: Make, moment: int) -> None:
        reply = Reply(calls=[call("echo", text="a"), call("shell", command="true")])
        made = await bench([reply, Reply(text="done", piece=1), "again"], [ECHO, SHELL])
        run = made.agent.start("go")
        count = 0
        async for _ in run:
            count += 1
            if count == moment:
                run.cancel()
        made.server.script = [Reply(text="again")]
        made.server._next = 0
        made.server.repeat = True  # a request of the first turn may still arrive
        assert (await made.agent.start("and now?").result()).task_result == "again"
        check(made)
        finished = [e.result.call_id for e in made.log.events if isinstance(e, ToolFinished)]
        assert len(finished) == len(set(finished))


async def test_what_was_steered_too_late_is_read_by_the_next_turn(bench: Make) -> None:
    made = await bench(["one", "two"])
    run = made.agent.start("first")
    await run.result()
    run.steer("and be brief")
    await made.agent.start("second").result()
    assert [m["content"] for m in asked(made)[1]] == ["first", "one", "and be brief", "second"]
    check(made)


class TestMode:
    async def test_it_holds_from_the_next_call_on(self, bench: Make) -> None:
        writing = Reply(calls=[call("write", path="f", text="x")])
        made = await bench([writing, "refused", writing, "written"], [WRITE])
        made.agent.tools.permissions = ModePermissions(Mode.AUTO)
        await made.agent.set_mode(Mode.PLAN)
        await made.agent.start("write").result()
        assert not (made.workspace / "f").exists()
        await made.agent.set_mode(Mode.AUTO)
        await made.agent.start("now write").result()
        assert (made.workspace / "f").exists() and check(made).mode == "auto"

    async def test_the_model_hears_of_plan_mode_once_each_way(self, make_chat: Make) -> None:
        made = await make_chat([str(n) for n in range(5)])
        for number, mode in enumerate([Mode.AUTO, Mode.PLAN, Mode.PLAN, Mode.ASK, Mode.EDITS]):
            await made.agent.set_mode(mode)
            await made.agent.start(f"turn {number}").result()
        told = [m["content"].split("\n")[0] for m in asked(made)[-1] if m["role"] == "user"]
        notes = [text for text in told if text.startswith("#")]
        assert notes == ["# Plan mode", "# Plan mode is over"]
        assert told.index("# Plan mode") == told.index("turn 1") + 1
        for earlier, later in itertools.pairwise(asked(made)):
            assert later[: len(earlier)] == earlier
        assert check(made).mode == "edits"

    async def test_a_session_that_goes_on_in_another_mode_says_so(self, make_chat: Make) -> None:
        first = await make_chat(["a plan"])
        first.agent.session = replace(first.agent.session, mode="plan")
        await first.agent.start("plan it").result()
        second = await make_chat(["done"], log=first.log, state=first.agent.state)
        await second.agent.start("do it").result()
        (request,) = asked(second)
        assert request[-1]["content"].startswith("# Plan mode is over")


class TestModel:
    async def test_another_one_answers_the_next_turn(self, bench: Make) -> None:
        with ScriptedServer([Reply(text="from the other")]) as other:

            def connect(name: str) -> LLMClient:
                if name != "local:other":
                    raise ConfigError(f"unknown model {name}")
                return OpenAIChat(ModelInfo("other", "local"), "", other.url)

            made = await bench([Reply(thinking="hm", text="one")], connect=connect)
            await made.agent.start("first").result()
            with pytest.raises(ConfigError, match="unknown"):
                await made.agent.set_model("local:missing")
            assert made.agent.client.info.id == "scripted"
            await made.agent.set_model("local:other")
            result = await made.agent.start("second").result()
            await made.agent.client.aclose()
            (request,) = other.requests
        assert result.task_result == "from the other" and check(made).model == "local:other"
        assert [m["content"] for m in request.json["messages"]] == ["first", "one", "second"]
        moves = [event for event in made.log.events if isinstance(event, ModelChanged)]
        assert [(move.model, move.reason) for move in moves] == [("local:other", "")]

    async def test_not_within_a_turn(self, bench: Make) -> None:
        made = await bench([Reply(text="slow", delay_s=0.2)])
        run = made.agent.start("one")
        with pytest.raises(UsageError, match="cannot change the model"):
            await made.agent.set_model("local:other")
        await run.result()

    async def test_not_if_a_turn_began_while_it_was_being_connected(self, bench: Make) -> None:
        closed = []

        class Other(OpenAIChat):
            async def aclose(self) -> None:
                closed.append(self.info.id)
                await super().aclose()

        def connect(_: str) -> LLMClient:
            time.sleep(0.2)
            return Other(ModelInfo("other", "local"), "", "http://127.0.0.1:9")

        made = await bench([Reply(text="slow", delay_s=0.6)], connect=connect)
        change = asyncio.create_task(made.agent.set_model("local:other"))
        await asyncio.sleep(0.05)
        run = made.agent.start("one")
        with pytest.raises(UsageError, match="cannot change the model"):
            await change
        assert (await run.result()).task_result == "slow" and closed == ["other"]

    async def test_a_fallback_goes_on_in_the_turns_that_follow(self, bench: Make) -> None:
        with ScriptedServer([Reply(text="one"), Reply(text="two")]) as other:
            info = ModelInfo("other", "local")
            made = await bench(
                [Reply(status=402)], fallbacks=[lambda: OpenAIChat(info, "", other.url)]
            )
            await made.agent.start("first").result()
            result = await made.agent.start("second").result()
            await made.agent.client.aclose()
        assert result.task_result == "two" and check(made).model == "local:other"


@pytest.fixture
def make_chat(bench: Make) -> Make:
    """Builds agents with the coding agent's prompt and the permissions of a mode."""

    async def make(script: Any, tools: Any = (), **options: Any) -> Bench:
        made = await bench(script, tools, module=CodingAgent(), **options)
        assert isinstance(made.agent.tools, Registry)
        made.agent.tools.permissions = ModePermissions(Mode.AUTO)
        return made

    return make
