"""Stop criteria, and the order in which they are checked."""

from __future__ import annotations

import asyncio

from agentcli.agent.budget import RunLimits
from agentcli.agent.criteria import MaxRuntime, Moment, Stagnation
from agentcli.agent.events import Status, StopReason
from agentcli.agent.module import AgentModule
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stop, stop_for
from agentcli.tools.base import STOP, ToolContext, ToolKind, ToolOutput
from agentcli.tools.decline import decline_tool
from agentcli.tools.registry import tool
from tests.agent.conftest import Make
from tests.agent.test_kernel import ECHO, call
from tests.server import Reply

ECHOING = Reply(calls=[call("echo", text="x")])


class Stopping(AgentModule):
    """A module that stops the run by its own condition after every step."""

    def should_stop(self, state: AgentState) -> StopReason | None:
        return StopReason.AGENT_CONDITION


async def test_a_final_answer_comes_before_all_others(bench: Make) -> None:
    made = await bench(["done"], module=Stopping(), limits=RunLimits(max_steps=1))
    assert (await made.run()).state.stop is StopReason.FINAL


async def test_the_agents_condition_comes_before_the_limit_of_steps(bench: Make) -> None:
    made = await bench([ECHOING], [ECHO], module=Stopping(), limits=RunLimits(max_steps=1))
    result = await made.run()
    assert result.state.stop is StopReason.AGENT_CONDITION
    assert result.state.status is Status.SOLVED and result.exit_code == 0


async def test_an_environment_can_end_the_run(bench: Make) -> None:
    made = await bench([ECHOING, ECHOING], [ECHO])
    made.agent.context.environment.terminal = ""  # type: ignore[attr-defined]
    run = made.agent.start("play")
    async for event in run:
        if type(event).__name__ == "StepFinished":
            made.agent.context.environment.terminal = "checkmate"  # type: ignore[attr-defined]
    result = await run.result()
    assert result.state.stop is StopReason.ENV_TERMINAL and result.step_count == 2
    assert result.state.detail == "checkmate" and result.exit_code == 0


async def test_a_tool_can_end_the_run(bench: Make) -> None:
    async def move(context: ToolContext) -> ToolOutput:
        """Move."""
        return ToolOutput("you win", data={STOP: "env_terminal"})

    made = await bench([Reply(calls=[("move", {})])], [tool(move, ToolKind.RUN)])
    result = await made.run()
    assert (result.state.stop, result.task_result) == (StopReason.ENV_TERMINAL, "you win")


async def test_a_model_that_declines_leaves_the_task_unsolved(bench: Make) -> None:
    declining = Reply(calls=[("decline", {"reason": "There is no such file."})])
    made = await bench([declining], [decline_tool()])
    result = await made.run()
    assert result.state.stop is StopReason.DECLINED and result.exit_code == 1
    assert result.task_result == "There is no such file."


async def test_max_runtime_ends_the_run_after_a_complete_step(bench: Make) -> None:
    async def slow(context: ToolContext) -> str:
        """Wait."""
        await asyncio.sleep(0.3)
        return "whole"

    script = [Reply(calls=[("slow", {})]), "never asked"]
    made = await bench(script, [tool(slow, ToolKind.READ)], criteria=[MaxRuntime(0.2)])
    result = await made.run()
    assert result.state.stop is StopReason.BUDGET_TIME and result.step_count == 1
    assert result.records[0].results[0].content == "whole"


async def test_stagnation_is_three_of_the_same_fault_within_one_run(bench: Make) -> None:
    wrong = Reply(calls=[call("echo", text=7)])
    made = await bench([wrong] * 2 + ["hm", *[wrong] * 3], [ECHO])
    assert (await made.agent.start("one").result()).task_result == "hm"
    result = await made.agent.start("two").result()
    assert result.state.stop is StopReason.STAGNATION and result.state.used.steps == 3


async def test_others_can_be_added_and_are_asked_last(bench: Make) -> None:
    class Never:
        asked = 0

        async def met(self, moment: Moment) -> Stop | None:
            self.asked += 1
            return stop_for(StopReason.SUCCESS, answer="as wished") if self.asked == 2 else None

    wrong = Reply(calls=[call("echo", text=7)])
    made = await bench([wrong] * 3, [ECHO], criteria=[Stagnation(9), Never()])
    result = await made.run()
    assert result.state.stop is StopReason.SUCCESS and result.step_count == 2
