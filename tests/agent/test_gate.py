"""The plan gate: if it is on, no file changes before there is a plan."""

from __future__ import annotations

import pytest

from agentcli.agent.gate import PlanGate
from agentcli.messages import Outcome, Role
from agentcli.prompts import Prompts
from agentcli.tools.base import ToolKind
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.plan import plan_tool
from agentcli.tools.registry import Registry, tool
from agentcli.tools.todo import todo_tool
from tests.agent.conftest import Bench, Make
from tests.agent.test_kernel import ECHO, WRITE, call, shell
from tests.server import Reply

PLAN = plan_tool(Prompts.standard())
SHELL = tool(shell, ToolKind.RUN, command_argument="command")
WRITING = Reply(calls=[call("write", path="f", text="x")])


def outcomes(made: Bench) -> list[str]:
    messages = made.agent.state.history
    return [m.result.outcome.value for m in messages if m.role is Role.TOOL]


def gated(made: Bench) -> Bench:
    made.agent.stream._hooks = [PlanGate(made.agent.tools.purpose)]
    return made


async def test_editing_is_blocked_until_a_plan_of_three_to_six_steps_exists(bench: Make) -> None:
    script = [
        WRITING,
        Reply(calls=[call("shell", command="sed -i s/a/b/ f")]),
        Reply(calls=[call("echo", text="looking is free")]),
        Reply(calls=[call("plan", steps=["one", "two"])]),
        Reply(calls=[call("plan", steps=["read", "change", "test"])]),
        WRITING,
        "done",
    ]
    made = gated(await bench(script, [WRITE, SHELL, ECHO, PLAN]))
    await made.run()
    assert outcomes(made) == ["denied", "denied", "ok", "error", "ok", "ok"]
    assert (made.workspace / "f").read_text() == "x"
    assert made.agent.state.plan == ("read", "change", "test")
    told = made.server.requests[1].json["messages"][-1]["content"]
    assert "make a plan of 3 to 6 steps first" in told


async def test_a_list_of_what_is_to_be_done_is_a_plan(bench: Make) -> None:
    items = [{"text": text, "state": "pending"} for text in ("read", "change", "test")]
    script = [
        Reply(calls=[call("todo", items=items[:2])]),
        WRITING,
        Reply(calls=[call("todo", items=items)]),
        WRITING,
        "done",
    ]
    made = gated(await bench(script, [WRITE, todo_tool(Prompts.standard())]))
    await made.run()
    assert outcomes(made) == ["ok", "denied", "ok", "ok"]
    assert made.agent.state.plan == ("read", "change", "test")


async def test_each_task_needs_a_plan_of_its_own(bench: Make) -> None:
    planning = Reply(calls=[call("plan", steps=["a", "b", "c"])])
    made = gated(await bench([planning, WRITING, "done", WRITING, "no"], [WRITE, PLAN]))
    await made.agent.start("one").result()
    await made.agent.start("two").result()
    assert outcomes(made) == ["ok", "ok", "denied"]


@pytest.mark.parametrize("count", range(1, 9))
async def test_a_plan_has_three_to_six_steps(bench: Make, count: int) -> None:
    made = await bench([Reply(calls=[call("plan", steps=["s"] * count)]), "done"], [PLAN])
    await made.run()
    assert (outcomes(made) == [Outcome.OK.value]) == (3 <= count <= 6)


def test_without_the_gate_nobody_is_offered_the_tool() -> None:
    assert Registry(builtin_tools()).get("plan") is None
