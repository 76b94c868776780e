"""The kernel with real parts: steps, stops, tools, cancellation, and the log."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.critics import Judgement, Review
from agentcli.agent.decision import Act, Decision
from agentcli.agent.events import (
    AnswerRejected,
    CheckFinished,
    CheckStarted,
    Delta,
    Event,
    MemoryLog,
    Phase,
    PhaseChanged,
    RetryScheduled,
    RunFinished,
    Stage,
    StageStarted,
    Status,
    StepFinished,
    StopReason,
    StreamReset,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.hooks import Allow, Deny, Hook, Replace, Verdict
from agentcli.agent.module import AgentModule
from agentcli.agent.state import AgentState
from agentcli.errors import JournalError
from agentcli.llm.client import ModelInfo, TextDelta
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import (
    Message,
    Outcome,
    Role,
    ToolCall,
    ToolResult,
    Usage,
    user,
    validate_history,
)
from agentcli.sandbox.limits import Limits
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool
from tests.agent.conftest import Make
from tests.server import Reply, ScriptedServer


async def echo(context: ToolContext, text: str) -> str:
    """Say it again."""
    return text


async def write(context: ToolContext, path: str, text: str) -> ToolOutput:
    """Write a file."""
    await context.environment.write(path, text.encode())
    return ToolOutput(f"wrote {path}", paths=(path,))


async def shell(context: ToolContext, command: str) -> str:
    """Run a command."""
    done = await context.environment.exec(
        ["/bin/sh", "-c", command], limits=Limits(), on_output=context.progress
    )
    return done.stdout


ECHO = tool(echo, ToolKind.READ)
WRITE = tool(write, ToolKind.EDIT, path_arguments=("path",))
SHELL = tool(shell, ToolKind.RUN)


def call(name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return name, arguments


async def test_an_answer_ends_the_run(bench: Make) -> None:
    agent = await bench(["All good."])
    result = await agent.run("is it good?")
    assert result.task_result == "All good." and result.exit_code == 0
    assert result.state.stop is StopReason.FINAL and result.state.status is Status.SOLVED
    assert [m.role.value for m in result.state.history] == ["user", "assistant"]
    assert agent.kinds() == [
        "SessionStarted",
        "TaskGiven",
        "MessageAdded",
        "StepStarted",
        "ModelAnswered",
        "StepFinished",
        "RunFinished",
    ]


async def test_a_step_is_the_six_stages_in_order(bench: Make) -> None:
    class Easy:
        async def review(self, state: AgentState) -> Review:
            return Review()

    agent = await bench([Reply(calls=[call("echo", text="x")]), "done"], [ECHO], critics=(Easy(),))
    events = await agent.watch(agent.agent.start("go"))
    stages = [(e.step, e.stage.value) for e in events if isinstance(e, StageStarted)]
    six = ["observe", "decide", "act", "reduce", "critic", "check_stop"]
    assert stages == [(1, stage) for stage in six] + [(2, s) for s in six if s != "act"]


async def test_what_streams_is_what_is_recorded(bench: Make) -> None:
    agent = await bench([Reply(text="Hello, wide world", piece=3)])
    events = await agent.watch(agent.agent.start("hi"))
    streamed = "".join(
        e.delta.text for e in events if isinstance(e, Delta) and isinstance(e.delta, TextDelta)
    )
    assert streamed == "Hello, wide world" == agent.agent.state.answer


async def test_results_come_in_the_order_of_the_calls_and_reads_run_together(bench: Make) -> None:
    begun, ended = set(), [asyncio.Event() for _ in range(5)]
    ended[4].set()

    async def slow(context: ToolContext, number: int) -> str:
        """Wait until all have begun, and for the next one to end."""
        begun.add(number)
        while len(begun) < 4:
            await asyncio.sleep(0.001)
        await ended[number + 1].wait()
        ended[number].set()
        return str(number)

    calls = [call("slow", number=n) for n in range(4)]
    agent = await bench([Reply(calls=calls), "done"], [tool(slow, ToolKind.READ)])
    result = await agent.run()
    assert sorted(r.content for r in result.records[0].results) == ["0", "1", "2", "3"]
    finished = [e.result.content for e in agent.log.events if isinstance(e, ToolFinished)]
    assert finished == ["3", "2", "1", "0"]
    contents = [m.result.content for m in result.state.history if m.role is Role.TOOL]
    assert contents == ["0", "1", "2", "3"]


async def test_an_edit_is_over_before_a_command_of_the_same_answer_starts(bench: Make) -> None:
    calls = [
        call("write", path="a.txt", text="one"),
        call("shell", command="cat a.txt"),
        call("write", path="a.txt", text="two"),
        call("shell", command="cat a.txt"),
    ]
    agent = await bench([Reply(calls=calls), "done"], [WRITE, SHELL])
    result = await agent.run()
    contents = [m.result.content for m in result.state.history if m.role is Role.TOOL]
    assert contents == ["wrote a.txt", "one", "wrote a.txt", "two"]
    assert result.state.files_changed == ("a.txt",)


async def test_every_call_gets_a_result_whatever_it_is(bench: Make) -> None:
    async def broken(context: ToolContext) -> str:
        """Break."""
        raise RuntimeError("boom")

    calls: list[tuple[str, Any]] = [
        call("nonsense"),
        ("echo", '{"text": '),
        call("echo", text=7),
        call("echo"),
        call("broken"),
        call("echo", text=""),
    ]
    agent = await bench([Reply(calls=calls), "done"], [ECHO, tool(broken, ToolKind.READ)])
    result = await agent.run()
    outcomes = [m.result.outcome.value for m in result.state.history if m.role is Role.TOOL]
    assert outcomes == ["error"] * 5 + ["ok"]
    assert result.exit_code == 0


async def test_an_answer_with_hundreds_of_calls_is_cut_short(bench: Make) -> None:
    calls = [call("echo", text=str(n)) for n in range(300)]
    agent = await bench([Reply(calls=calls), "done"], [ECHO])
    result = await agent.run()
    outcomes = [m.result.outcome for m in result.state.history if m.role is Role.TOOL]
    assert outcomes == [Outcome.OK] * 128 + [Outcome.SKIPPED] * 172
    assert result.state.tool_calls == 128


async def test_arguments_nested_beyond_measure_are_the_calls_own_fault(bench: Make) -> None:
    agent = await bench([Reply(calls=[("write", "[" * 100_000)]), "done"], [WRITE])
    result = await agent.run()
    assert result.records[0].results[0].outcome is Outcome.ERROR and result.exit_code == 0


async def test_the_same_faulty_call_again_and_again_ends_the_run(bench: Make) -> None:
    wrong, right = Reply(calls=[call("echo", text=7)]), Reply(calls=[call("echo", text="x")])
    agent = await bench([wrong, wrong, right, wrong, wrong, wrong, "never"], [ECHO])
    result = await agent.run()
    assert result.state.stop is StopReason.STAGNATION and result.step_count == 6
    assert result.exit_code == 1 and "3 times" in result.state.detail


async def test_the_same_good_call_may_be_made_for_ever(bench: Make) -> None:
    same = Reply(calls=[call("shell", command="false")])
    agent = await bench([*[same] * 6, "done"], [SHELL])
    assert (await agent.run()).task_result == "done"


async def test_a_tool_is_recorded_before_it_runs(bench: Make) -> None:
    seen: list[str] = []

    class Log(MemoryLog):
        async def append(self, event: Event, *, sync: bool = False) -> None:
            await super().append(event, sync=sync)
            if isinstance(event, ToolStarted):
                seen.append(f"{event.call.name} {'synced' if sync else 'written'}")

    async def look(context: ToolContext) -> str:
        """Look."""
        return ", ".join(seen)

    tools = [tool(look, ToolKind.READ), tool(look, ToolKind.EDIT, name="change")]
    script = [Reply(calls=[call("look")]), Reply(calls=[call("change")]), "done"]
    agent = await bench(script, tools, log=Log())
    result = await agent.run()
    contents = [m.result.content for m in result.state.history if m.role is Role.TOOL]
    assert contents == ["look written", "look written, change synced"]


async def test_output_shows_while_the_tool_runs(bench: Make) -> None:
    agent = await bench(
        [Reply(calls=[call("shell", command="echo one; sleep 0.1; echo two")]), "done"], [SHELL]
    )
    events = await agent.watch(agent.agent.start("go"))
    shown = b"".join(e.data for e in events if isinstance(e, ToolProgress))
    assert shown == b"one\ntwo\n"
    kinds = [type(e) for e in events]
    assert kinds.index(ToolStarted) < kinds.index(ToolProgress) < kinds.index(ToolFinished)


class TestUnusableAnswers:
    async def test_an_empty_answer_is_asked_again(self, bench: Make) -> None:
        agent = await bench(["", "  \n", "here I am"])
        result = await agent.run()
        assert result.task_result == "here I am" and result.step_count == 1
        rejected = [e for e in agent.log.events if isinstance(e, AnswerRejected)]
        assert len(rejected) == 2
        assert result.state.usage.output_tokens == 30  # rejected answers count too

    async def test_it_gives_up_with_the_reason(self, bench: Make) -> None:
        agent = await bench([""] * 3)
        result = await agent.run()
        assert result.state.stop is StopReason.PROVIDER_FAILED and result.exit_code == 3
        assert "empty" in result.state.detail and len(agent.server.requests) == 3

    async def test_a_call_cut_by_the_token_limit_never_runs(self, bench: Make) -> None:
        cut = Reply(calls=[("shell", '{"command": "touch cut"}')], finish="length")
        torn = Reply(calls=[("shell", '{"command": "touch to')], finish="length")
        agent = await bench([cut, torn, "done"], [SHELL])
        result = await agent.run()
        assert result.task_result == "done"
        assert os.listdir(agent.workspace) == []
        assert not any(isinstance(e, ToolStarted) for e in agent.log.events)
        assert (
            "token limit inside a tool call"
            in agent.server.requests[1].json["messages"][-1]["content"]
        )

    async def test_text_cut_by_the_token_limit_is_no_success(self, bench: Make) -> None:
        agent = await bench([Reply(text="The answer is for", finish="length"), "42"])
        result = await agent.run()
        assert result.task_result == "42"

    async def test_a_filtered_answer_ends_the_run(self, bench: Make) -> None:
        agent = await bench([Reply(text="I", finish="content_filter")])
        result = await agent.run()
        assert result.exit_code == 3 and "content filter" in result.state.detail


class TestRetries:
    async def test_a_fault_is_retried_and_counted_apart(self, bench: Make) -> None:
        agent = await bench([Reply(status=503), Reply(status=500), "done"])
        result = await agent.run()
        assert (result.step_count, result.state.retries, result.records[0].retries) == (1, 2, 2)

    async def test_a_break_in_mid_answer_takes_back_what_was_shown(self, bench: Make) -> None:
        agent = await bench([Reply(text="Hello wor", cut_after=200), "Hello again"])
        shown = ""
        async for event in agent.agent.start("hi"):
            if isinstance(event, StreamReset):
                shown = ""
            if isinstance(event, Delta) and isinstance(event.delta, TextDelta):
                shown += event.delta.text
        assert shown == "Hello again" == agent.agent.state.answer

    async def test_a_wrong_key_ends_at_once(self, bench: Make) -> None:
        agent = await bench([Reply(status=401)])
        result = await agent.run()
        assert result.exit_code == 3 and len(agent.server.requests) == 1
        assert not any(isinstance(e, RetryScheduled) for e in agent.log.events)

    async def test_exhaustion_says_how_often(self, bench: Make) -> None:
        agent = await bench([Reply(status=500)] * 4)
        result = await agent.run()
        assert result.exit_code == 3 and "after 4 attempts" in result.state.detail

    async def test_a_model_that_fails_for_good_is_replaced(self, bench: Make) -> None:
        with ScriptedServer([Reply(text="from the other")]) as other:
            info = ModelInfo("other", "local")
            agent = await bench(
                [Reply(status=402)], fallbacks=[lambda: OpenAIChat(info, "", other.url)]
            )
            result = await agent.run()
            await agent.agent.client.aclose()
        assert result.task_result == "from the other" and result.state.model == "local:other"


class TestLimits:
    async def test_steps(self, bench: Make) -> None:
        script = [Reply(calls=[call("echo", text=str(n))]) for n in range(5)]
        agent = await bench(script, [ECHO], limits=RunLimits(max_steps=3))
        result = await agent.run()
        assert result.state.stop is StopReason.BUDGET_STEPS and result.step_count == 3
        assert result.exit_code == 1 and len(agent.server.requests) == 3

    async def test_tokens(self, bench: Make) -> None:
        used = Usage(input_tokens=90, output_tokens=10)
        script = [Reply(calls=[call("echo", text="x")], usage=used) for n in range(5)]
        agent = await bench(script, [ECHO], limits=RunLimits(tokens=450))
        result = await agent.run()
        assert result.state.stop is StopReason.BUDGET_TOKENS
        assert 200 <= result.state.usage.total_tokens <= 450
        bounds = [request.json["max_tokens"] for request in agent.server.requests]
        assert bounds == sorted(bounds, reverse=True) and bounds[0] < 450

    async def test_tool_calls(self, bench: Make) -> None:
        script = [Reply(calls=[call("echo", text=str(n)) for n in range(3)])]
        agent = await bench(script, [ECHO], limits=RunLimits(tool_calls=2))
        result = await agent.run()
        assert result.state.stop is StopReason.BUDGET_TOOLS
        outcomes = [r.outcome for r in result.records[0].results]
        assert sorted(outcomes) == [Outcome.OK, Outcome.OK, Outcome.SKIPPED]

    async def test_time_while_a_tool_runs(self, bench: Make) -> None:
        for time_s in (0.5, 10):  # on a busy machine, 0.5 s may end too early
            agent = await bench(
                [Reply(calls=[call("shell", command="sleep 600")])],
                [SHELL],
                limits=RunLimits(time_s=time_s),
            )
            result = await agent.run()
            assert result.state.stop is StopReason.BUDGET_TIME
            if result.state.history[-1].role is Role.TOOL:
                break
        assert result.state.history[-1].result.outcome is Outcome.CANCELLED

    async def test_time_while_the_model_stalls(self, bench: Make) -> None:
        agent = await bench(
            [Reply(text="wait for it", stall_after=300)], limits=RunLimits(time_s=0.5)
        )
        result = await agent.run()
        assert result.state.stop is StopReason.BUDGET_TIME

    async def test_time_while_waiting_for_a_retry(self, bench: Make) -> None:
        agent = await bench(
            [Reply(status=429, headers={"retry-after": "60"})], limits=RunLimits(time_s=0.5)
        )
        result = await agent.run()
        assert result.state.stop is StopReason.BUDGET_TIME


class TestCancellation:
    async def test_while_tools_run_nothing_is_left_behind(
        self, bench: Make, tmp_path: Path
    ) -> None:
        command = "echo $$ > pid; (sleep 60 & echo $! > child); sleep 60"
        calls = [call("shell", command=command), call("shell", command="touch never")]
        agent = await bench([Reply(calls=calls)], [SHELL])
        run = agent.agent.start("go")
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await asyncio.sleep(0.01)
        run.cancel()
        result = await run.result()
        agent.check(result.state)
        assert result.state.stop is StopReason.CANCELLED and result.exit_code == 130
        outcomes = [m.result.outcome for m in result.state.history if m.role is Role.TOOL]
        assert outcomes == [Outcome.CANCELLED, Outcome.SKIPPED]
        assert not (tmp_path / "never").exists()

    @pytest.mark.parametrize("moment", range(0, 40, 3))
    async def test_at_any_event(self, bench: Make, moment: int) -> None:
        script = [
            Reply(text="Let me see", calls=[call("echo", text="a"), call("echo", text="b")]),
            Reply(status=503),
            Reply(calls=[call("write", path="f", text="x"), call("shell", command="cat f")]),
            Reply(text="done", piece=1),
        ]
        agent = await bench(script, [ECHO, WRITE, SHELL])
        run = agent.agent.start("go")
        count = 0
        async for _ in run:
            count += 1
            if count == moment:
                run.cancel()
        result = await run.result()
        agent.check(result.state)
        assert result.state.stop in (StopReason.CANCELLED, StopReason.FINAL)

    async def test_before_it_began(self, bench: Make) -> None:
        agent = await bench(["never asked"])
        run = agent.agent.start("go")
        run.cancel()
        result = await run.result()
        assert result.state.stop is StopReason.CANCELLED and agent.server.requests == []

    async def test_twice_is_once(self, bench: Make) -> None:
        agent = await bench([Reply(text="slow", delay_s=5)])
        run = agent.agent.start("go")
        await asyncio.sleep(0.05)
        run.cancel()
        await asyncio.sleep(0)
        run.cancel()
        result = await run.result()
        assert result.state.stop is StopReason.CANCELLED
        agent.check(result.state)


class TestHooks:
    async def test_the_first_verdict_other_than_allow_holds(self, bench: Make) -> None:
        class Allowing(Hook):
            async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
                return Allow()

        class Guard(Hook):
            async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
                if "secret" in call.arguments:
                    return Deny("no secrets")
                return Replace(ToolResult("?", "?", "from the hook"))

        calls = [call("echo", text="secret"), call("echo", text="plain")]
        agent = await bench([Reply(calls=calls), "done"], [ECHO], hooks=[Allowing(), Guard()])
        result = await agent.run()
        results = [m.result for m in result.state.history if m.role is Role.TOOL]
        assert [r.content for r in results] == ["denied: no secrets", "from the hook"]
        assert [r.outcome for r in results] == [Outcome.DENIED, Outcome.OK]
        assert [r.name for r in results] == ["echo", "echo"]

    async def test_a_failing_hook_is_reported_once_and_stops_nothing(self, bench: Make) -> None:
        class Broken(Hook):
            async def on_event(self, event: Event, state: AgentState) -> None:
                raise ValueError("oops")

            async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
                raise ValueError("oops again")

        agent = await bench(
            [Reply(calls=[call("echo", text="x")]), "done"], [ECHO], hooks=[Broken()]
        )
        result = await agent.run()
        assert result.task_result == "done"
        warnings = [e.text for e in agent.log.events if isinstance(e, Warned)]
        assert warnings == ["hook Broken failed: ValueError('oops')"]

    async def test_the_state_a_hook_sees_includes_the_event(self, bench: Make) -> None:
        seen: list[tuple[int, bool]] = []

        class Watcher(Hook):
            async def on_event(self, event: Event, state: AgentState) -> None:
                if isinstance(event, StepFinished):
                    seen.append((state.step, state.finished))
                if isinstance(event, RunFinished):
                    seen.append((state.step, state.finished))

        agent = await bench(["done"], hooks=[Watcher()])
        await agent.run()
        assert seen == [(1, False), (1, True)]


class TestChecks:
    async def test_a_failed_check_goes_back_to_the_model(self, bench: Make) -> None:
        script = ["done?", Reply(calls=[call("write", path="ok", text="")]), "done!"]
        agent = await bench(script, [WRITE])
        result = await agent.run(checks=["test -e ok"])
        assert result.task_result == "done!" and result.state.status is Status.SOLVED
        assert [c.passed for c in result.state.check_results] == [True]
        told = agent.server.requests[1].json["messages"][-1]["content"]
        assert "check failed (exit code 1)\n$ test -e ok" in told

    async def test_a_check_that_never_passes_leaves_the_run_unsolved(self, bench: Make) -> None:
        agent = await bench(["done"] * 3, limits=RunLimits(check_rounds=2))
        result = await agent.run(checks=["echo why; false", "true"])
        assert result.state.stop is StopReason.FINAL and result.state.status is Status.UNSOLVED
        assert result.exit_code == 1 and "false" in result.state.detail
        assert {(c.command, c.passed) for c in result.state.check_results} == {
            ("echo why; false", False),
            ("true", True),
        }
        reports = [e.output for e in agent.log.events if isinstance(e, CheckFinished)]
        assert "check failed (exit code 1)\n$ echo why; false\nwhy" in reports

    async def test_checks_speak_the_language_of_the_shell_tool(self, bench: Make) -> None:
        agent = await bench(["done"])
        result = await agent.run(checks=["[[ 1 == 1 ]]"])
        assert result.exit_code == 0

    async def test_reports_of_several_checks_share_the_room_of_one_result(
        self, bench: Make
    ) -> None:
        agent = await bench(["done"] * 2, limits=RunLimits(check_rounds=1))
        await agent.run(checks=["seq 1 40000; false", "seq 1 50000; false"])
        told = agent.server.requests[1].json["messages"][-1]["content"]
        assert len(told) < 32_000 and "characters left out" in told and "\n1\n" in told

    async def test_plan_mode_runs_none(self, bench: Make) -> None:
        agent = await bench(["the plan"])
        agent.agent.session = replace(agent.agent.session, mode="plan")
        result = await agent.run(checks=["touch changed"])
        assert result.exit_code == 0 and not (agent.workspace / "changed").exists()
        assert any(isinstance(e, Warned) and "not run" in e.text for e in agent.log.events)

    async def test_a_check_that_begins_is_told(self, bench: Make) -> None:
        agent = await bench(["done"])
        events = await agent.watch(agent.agent.start("go", checks=["true"]))
        assert CheckStarted("true", 1, 4) in events


class TestSessionsOfManyRuns:
    async def test_limits_and_results_are_those_of_the_run(self, bench: Make) -> None:
        calls = [Reply(calls=[call("write", path=f"f{n}", text="x")]) for n in range(3)]
        first = await bench(calls, [WRITE], limits=RunLimits(max_steps=2))
        before = (await first.run(checks=["false"])).state
        assert before.used.steps == 2 and before.limits["max_steps"] == 2
        second = await bench(
            ["done"] * 2, log=first.log, state=before, limits=RunLimits(max_steps=2)
        )
        result = await second.agent.start("", checks=["true"]).result()
        # The new run adds a check to those of the task, and counts its own steps.
        assert result.state.checks == ("false", "true") and result.state.used.steps == 2
        third = await bench(["done too"], log=first.log, state=result.state)
        last = (await third.agent.start("another task").result()).state
        assert last.check_results == () and last.files_changed == ()
        assert last.used.steps == 1 and last.used.usage.total_tokens == 110
        assert last.step == 5 and fold_all(first.log.events) == last


class TestJournalFailures:
    @pytest.mark.parametrize("at", range(0, 14))
    async def test_a_run_never_goes_on_unrecorded(self, bench: Make, at: int) -> None:
        class Full(MemoryLog):
            async def append(self, event: Event, *, sync: bool = False) -> None:
                if len(self.events) >= at:
                    raise JournalError("disk full")
                await super().append(event, sync=sync)

        script = [Reply(calls=[call("write", path="f", text="x")]), "done"]
        agent = await bench(script, [WRITE], log=Full())
        result = await agent.agent.start("go").result()
        if result.state.stop is StopReason.FINAL:
            assert at >= len(agent.log.events)
            return
        assert result.state.stop is StopReason.UNRECOVERABLE_ERROR and result.exit_code == 5
        started = any(isinstance(e, ToolStarted) for e in agent.log.events)
        assert started or not (agent.workspace / "f").exists()


class TestSteering:
    async def test_it_is_read_at_the_next_step_and_keeps_the_run_alive(self, bench: Make) -> None:
        told = threading.Event()
        agent = await bench([Reply(text="done", until=told), "and the tests too"])
        run = agent.agent.start("fix it")
        async for event in run:
            if isinstance(event, StageStarted) and event.stage is Stage.DECIDE:
                run.steer("also the tests")
                told.set()
                break
        result = await run.result()
        agent.check(result.state)
        assert result.task_result == "and the tests too"
        assert [m.text for m in result.state.history] == [
            "fix it",
            "done",
            "also the tests",
            "and the tests too",
        ]


class TestModule:
    async def test_the_module_is_asked_at_its_places(self, bench: Make) -> None:
        class Mine(AgentModule):
            def build_system_prompt(self, state: AgentState) -> str:
                return f"You work in {Path(state.workspace).name or 'nowhere'}."

            def init_state(self, state: AgentState) -> list[Message]:
                return [user("remember: small steps")]

            async def observe(self, state: AgentState) -> str:
                return f"step {state.running_step} begins" if state.running_step == 2 else ""

            async def decide(self, state: AgentState) -> Decision | None:
                return None

            async def reduce(self, state: AgentState, results: Any) -> str:
                return "noted" if results else ""

            def should_stop(self, state: AgentState) -> StopReason | None:
                return StopReason.AGENT_CONDITION if state.step >= 1 else None

        script = [Reply(calls=[call("echo", text="a")]), Reply(calls=[call("echo", text="b")])]
        agent = await bench(script, [ECHO], module=Mine())
        result = await agent.run("go")
        assert result.state.stop is StopReason.AGENT_CONDITION
        texts = [m.text for m in result.state.history if m.role in (Role.SYSTEM, Role.USER)]
        assert texts[1:] == ["remember: small steps", "go", "noted", "step 2 begins", "noted"]
        assert texts[0] == f"You work in {agent.workspace.name}."

    async def test_a_module_may_decide_by_itself(self, bench: Make) -> None:
        class Acts(AgentModule):
            async def decide(self, state: AgentState) -> Decision | None:
                if state.running_step == 1:
                    return Act((ToolCall("own-1", "echo", '{"text": "x"}'),))
                return None

        agent = await bench(["done"], [ECHO], module=Acts())
        result = await agent.run()
        assert [r.content for r in result.records[0].results] == ["x"]
        validate_history(tuple(result.state.history))


class TestCritics:
    async def test_a_critic_can_ask_for_more_or_end_it(self, bench: Make) -> None:
        class Once:
            asked = 0

            async def review(self, state: AgentState) -> Review:
                self.asked += 1
                kinds = [Judgement.RETRY, Judgement.STOP]
                return Review(kinds[min(self.asked, 2) - 1], "not good enough")

        agent = await bench(["done", "done again"], critics=(Once(),))
        result = await agent.run()
        assert result.state.stop is StopReason.CRITIC_STOP and result.exit_code == 1
        assert result.state.detail == "not good enough" and result.step_count == 2


async def test_duplicate_ids_are_told_apart(bench: Make) -> None:
    twice = Reply(calls=[call("echo", text="a"), call("echo", text="b")], call_ids=["x", "x"])
    again = Reply(calls=[call("echo", text="c")], call_ids=["x"])
    agent = await bench([twice, again, "done"], [ECHO])
    result = await agent.run()
    contents = [m.result.content for m in result.state.history if m.role is Role.TOOL]
    assert contents == ["a", "b", "c"]
    ids = [c.id for m in result.state.history for c in m.calls]
    assert len(set(ids)) == 3


async def test_the_phase_follows_the_work(bench: Make) -> None:
    script = [
        Reply(calls=[call("echo", text="x")]),
        Reply(calls=[call("write", path="f", text="x")]),
        Reply(calls=[call("shell", command="true")]),
        "done",
    ]
    agent = await bench(script, [ECHO, WRITE, SHELL])
    await agent.run()
    moves = [e.phase for e in agent.log.events if isinstance(e, PhaseChanged)]
    assert moves == [Phase.DISCOVER, Phase.EDIT, Phase.VALIDATE]


async def test_each_request_extends_the_one_before(bench: Make) -> None:
    script: list[Any] = [Reply(calls=[call("echo", text=str(n))]) for n in range(4)]
    agent = await bench([*script, "", "done"], [ECHO])
    await agent.run()
    asked = [request.json["messages"] for request in agent.server.requests]
    for earlier, later in itertools.pairwise(asked):
        assert later[: len(earlier)] == earlier and len(later) > len(earlier)


async def test_a_session_goes_on_where_a_dead_process_left_it(bench: Make) -> None:
    script = [
        Reply(calls=[call("write", path="f", text="x"), call("echo", text="y")]),
        "never reached",
    ]
    first = await bench(script, [WRITE, ECHO])
    await first.run()
    events = first.log.events
    for cut in range(1, len(events) + 1):
        log = MemoryLog()
        log.events = list(events[:cut])
        second = await bench(["done"], [WRITE, ECHO], log=log, state=fold_all(events[:cut]))
        result = await second.agent.start("" if cut > 2 else "do it").result()
        validate_history(tuple(result.state.history))
        assert fold_all(log.events) == result.state
        assert result.task_result == "done", f"cut after {type(events[cut - 1]).__name__}"
        # A call that had started is not run again.
        started = [e.call.id for e in log.events if isinstance(e, ToolStarted)]
        assert len(started) == len(set(started))


async def test_an_unknown_error_is_told_and_not_raised(bench: Make) -> None:
    class Bug(AgentModule):
        async def observe(self, state: AgentState) -> str:
            raise ZeroDivisionError("bug")

    agent = await bench(["never"], module=Bug())
    result = await agent.run()
    assert result.exit_code == 5 and "ZeroDivisionError" in result.state.detail


async def test_reading_only_the_result_does_not_block_a_long_run(bench: Make) -> None:
    agent = await bench([Reply(text="x" * 3000, piece=1)])
    run = agent.agent.start("talk")
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(run.result(), 30)
    assert len((await run.result()).task_result) == 3000


@pytest.mark.parametrize("own_format", [False, True])
async def test_what_the_model_is_told_beside_the_task(bench: Make, own_format: bool) -> None:
    agent = (await bench(["done"])).agent
    client = agent.client
    assert isinstance(client, OpenAIChat)
    client.info = replace(client.info, fits_itself=own_format)
    agent.tell("The user ran a command")
    result = await agent.start("why?").result()
    texts = [message.text for message in result.state.history]
    # A model with a format of its own was trained on the words of users and tools alone.
    assert texts == [*([] if own_format else ["[agentcli] The user ran a command"]), "why?", "done"]
    assert agent._told == []
