"""Which tool calls of one answer run in parallel, and which wait for each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentcli.agent.acting import access, must_wait
from agentcli.messages import Role, ToolCall
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolSpec
from agentcli.tools.registry import tool
from tests.agent.conftest import Make
from tests.server import Reply

SPECS = {
    "read": ToolSpec("read", "", {}, ToolKind.READ, path_arguments=("path",)),
    "search": ToolSpec("search", "", {}, ToolKind.SEARCH),
    "edit": ToolSpec("edit", "", {}, ToolKind.EDIT, path_arguments=("path",)),
    "check": ToolSpec("check", "", {}, ToolKind.CHECK),
    "run": ToolSpec("run", "", {}, ToolKind.RUN),
    "plan": ToolSpec("plan", "", {}, ToolKind.PLAN),
}


def waits(first: str, second: str) -> bool:
    accesses = []
    for word in (first, second):
        name, _, path = word.partition(":")
        call = ToolCall("x", name, f'{{"path": "{path}"}}' if path else "{}")
        accesses.append(access(call, SPECS.get(name), "/work"))
    return must_wait(*accesses)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("read:a", "read:a", False),
        ("read:a", "search", False),
        ("edit:a", "edit:b", False),
        ("edit:a", "edit:a", True),
        ("edit:./a", "edit:a", True),
        ("edit:x/../a", "edit:/work/a", True),
        ("edit:../a", "edit:a", False),
        ("edit:a", "read:a", True),
        ("edit:a", "read:b", False),
        ("read:a", "edit:a", True),
        ("edit:a", "search", True),
        ("edit:a", "check", True),
        ("check", "edit:a", True),
        ("check", "check", True),
        ("check", "read:a", False),
        ("run", "read:a", True),
        ("read:a", "run", True),
        ("run", "run", True),
        ("plan", "run", False),
        ("unknown", "edit:a", False),
        ("edit", "edit:a", True),
    ],
)
def test_order(first: str, second: str, expected: bool) -> None:
    assert waits(first, second) is expected


async def test_calls_go_after_those_that_their_tools_depend_on(bench: Make) -> None:
    order: list[str] = []

    def noting(name: str, *before: str) -> Tool:
        async def note(context: ToolContext) -> str:
            """Note."""
            await asyncio.sleep(0.02)
            order.append(name)
            return name

        return tool(note, ToolKind.READ, name=name, depends_on=before)

    tools = [noting("deploy", "build"), noting("build", "fetch"), noting("fetch"), noting("free")]
    calls: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for name in ("deploy", "free", "build", "fetch")
    ]
    made = await bench([Reply(calls=calls), "done"], tools)
    result = await made.run()
    assert [name for name in order if name != "free"] == ["fetch", "build", "deploy"]
    contents = [m.result.content for m in result.state.history if m.role is Role.TOOL]
    assert contents == ["deploy", "free", "build", "fetch"]
