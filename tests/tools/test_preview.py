"""The diff of an edit can be previewed without making it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentcli.messages import Outcome, ToolCall
from agentcli.prompts import Prompts
from agentcli.tools.apply_patch import apply_patch_tool
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.preview import preview_diff
from agentcli.tools.registry import Registry
from agentcli.tools.rules import parse_rules

PATCH = """*** Begin Patch
*** Update File: a.txt
@@
-two
+zwei
*** Delete File: b.txt
*** End Patch"""


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("write_file", {"path": "a.txt", "content": "one\n2\n"}, ["@@ -1,2 +1,2 @@", "-two\n+2\n"]),
        ("write_file", {"path": "new.txt", "content": "new\n"}, ["--- /dev/null", "+new\n"]),
        ("search_replace", {"path": "a.txt", "old": "two", "new": "2"}, ["-two\n+2\n"]),
        ("apply_patch", {"patch": PATCH}, ["-two\n+zwei\n", "-gone\n"]),
        ("shell", {"command": "echo x > a.txt"}, []),
    ],
)
async def test_nothing_is_written(
    context: ToolContext, workspace: Path, name: str, arguments: dict[str, Any], parts: list[str]
) -> None:
    (workspace / "a.txt").write_text("one\ntwo\n")
    (workspace / "b.txt").write_text("gone\n")
    tools = {
        tool.spec.name: tool for tool in [*builtin_tools(), apply_patch_tool(Prompts.standard())]
    }
    diff = await preview_diff(tools[name], context, arguments)
    assert all(part in diff for part in parts) and bool(diff) == bool(parts)
    assert sorted(path.name for path in workspace.iterdir()) == ["a.txt", "b.txt"]
    assert (workspace / "a.txt").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search_replace", {"path": "a.txt", "old": "three", "new": "3"}),
        ("search_replace", {"path": "a.txt", "old": "o", "new": "0"}),
        ("search_replace", {"path": "missing.txt", "old": "three", "new": "3"}),
        ("apply_patch", {"patch": PATCH}),
    ],
)
async def test_an_edit_that_would_fail_is_not_asked_about(
    context: ToolContext, workspace: Path, name: str, arguments: dict[str, Any]
) -> None:
    (workspace / "a.txt").write_text("one\ntwo\n")
    asked: list[Approval] = []

    async def ask(approval: Approval) -> Reply:
        asked.append(approval)
        return Reply(Answer.NO)

    tools = [*builtin_tools(), apply_patch_tool(Prompts.standard())]
    call = ToolCall("1", name, json.dumps(arguments))
    result = await Registry(tools, ModePermissions(Mode.ASK, ask)).dispatch(call, context)
    assert not asked and result.outcome is Outcome.ERROR
    ran = await Registry(tools).dispatch(call, context)
    assert (result.content, result.paths) == (ran.content, ran.paths)
    assert result.data["error"] == ran.data["error"]
    # The error may quote a file that is not to be read.
    for mode, rules in (
        (Mode.AUTO, parse_rules(ask=[name])),
        (Mode.ASK, parse_rules(deny=["read_file(secrets/**)"])),
    ):
        permissions = ModePermissions(mode, ask, rules=rules, root=str(workspace))
        result = await Registry(tools, permissions).dispatch(call, context)
        assert asked.pop() and result.content == "denied: the user said no"
