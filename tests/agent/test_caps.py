"""Soft caps: each is announced once and stops nothing."""

from __future__ import annotations

from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.caps import Caps
from agentcli.agent.events import SoftCapReached, StopReason
from agentcli.messages import Outcome, Usage
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool
from tests.agent.conftest import Bench, Make
from tests.server import Reply


async def look(context: ToolContext, at: str) -> str:
    """Look."""
    return at


async def build(context: ToolContext) -> ToolOutput:
    """Build."""
    return ToolOutput("build failed (exit code 2)", Outcome.FAILED)


async def edit(context: ToolContext, path: str) -> ToolOutput:
    """Edit."""
    return ToolOutput("error: old text not found", Outcome.ERROR)


TOOLS = [
    tool(look, ToolKind.READ),
    tool(build, ToolKind.CHECK),
    tool(edit, ToolKind.EDIT, path_arguments=("path",)),
]


def told(made: Bench) -> list[tuple[int, str, float, float]]:
    return [
        (e.step, e.cap, e.used, e.limit) for e in made.log.events if isinstance(e, SoftCapReached)
    ]


def calls(*names: tuple[str, dict[str, Any]], usage: Usage | None = None) -> Reply:
    return Reply(calls=names, usage=usage or Usage(input_tokens=100, output_tokens=10))


async def test_forty_tool_calls(bench: Make) -> None:
    ten = calls(*(("look", {"at": f"{n}"}) for n in range(10)))
    made = await bench([ten] * 5 + ["done"], TOOLS)
    result = await made.run()
    assert told(made) == [(4, "tool_calls", 40, 40)]
    assert result.state.stop is StopReason.FINAL and result.state.tool_calls == 50


async def test_three_build_failures(bench: Make) -> None:
    """In the reference, this counter was never incremented."""
    made = await bench([calls(("build", {})), calls(("look", {"at": "x"}))] * 4 + ["done"], TOOLS)
    await made.run()
    assert told(made) == [(5, "failed_checks build", 3, 3)]


async def test_three_failed_edits_of_one_file(bench: Make) -> None:
    """In the reference, this counter was never incremented."""
    script = [
        calls(("edit", {"path": path})) for path in ("a", "b", "a", "./b", "c", "a", "b", "a")
    ]
    made = await bench([*script, "done"], TOOLS)
    await made.run()
    assert told(made) == [(6, "failed_edits a", 3, 3), (7, "failed_edits b", 3, 3)]


@pytest.mark.parametrize(
    ("limits", "cap", "step"),
    [
        (RunLimits(tokens=1000), "tokens", 8),
        (RunLimits(max_steps=10), "steps", 8),
        (RunLimits(cost_usd=10.0), "cost_usd", 8),
        (RunLimits(tool_calls=10), "tool_calls_of_limit", 8),
        (RunLimits(time_s=1e9), None, 0),
    ],
    ids=["tokens", "steps", "cost", "tool calls", "time is not near"],
)
async def test_four_fifths_of_a_hard_limit(
    bench: Make, limits: RunLimits, cap: str | None, step: int
) -> None:
    script = [calls(("look", {"at": f"{n}"}), usage=Usage(90, 0, 0, 10)) for n in range(20)]
    made = await bench(script, TOOLS, limits=limits, price_of=lambda info: lambda usage: 1.0)
    result = await made.run()
    assert [(when, name) for when, name, _, _ in told(made)] == ([(step, cap)] if cap else [])
    if cap:
        assert result.state.stop is not None and result.state.stop.value.startswith("budget_")


async def test_each_run_counts_from_zero(bench: Make) -> None:
    two = calls(*(("look", {"at": f"{n}"}) for n in range(2)))
    made = await bench([two, "one", two, "two"], TOOLS, caps=Caps(tool_calls=2))
    await made.run()
    await made.agent.start("again").result()
    assert [cap[1:3] for cap in told(made)] == [("tool_calls", 2), ("tool_calls", 2)]
