"""The diff of an edit can be previewed without making it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcli.messages import Outcome, ToolCall
from agentcli.prompts import Prompts
from agentcli.questions import proposed
from agentcli.tools.apply_patch import apply_patch_tool
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import Checks, ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.files import read_file
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
    await read_file(context, "a.txt")
    diff = await preview_diff(tools[name], context, arguments)
    assert all(part in diff for part in parts) and bool(diff) == bool(parts)
    assert sorted(path.name for path in workspace.iterdir()) == ["a.txt", "b.txt"]
    assert (workspace / "a.txt").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("files", "checks", "told"),
    [
        ({"Makefile": "test:\n\tfalse\n"}, Checks(), "make test"),
        ({"go.mod": "module x\n"}, Checks(), "go test ./..."),
        ({"test_a.py": ""}, Checks(test=("tox", "-q")), "tox -q"),
        ({"test_a.py": ""}, Checks(), "pytest or unittest, whichever the project's Python has"),
    ],
)
async def test_the_question_about_a_check_tells_what_runs(
    context: ToolContext, workspace: Path, files: dict[str, str], checks: Checks, told: str
) -> None:
    for name, text in files.items():
        (workspace / name).write_text(text)
    venv = workspace / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text("#!/bin/sh\ntouch ran\n")
    (venv / "python").chmod(0o755)
    asked: list[Approval] = []

    async def ask(approval: Approval) -> Reply:
        asked.append(approval)
        return Reply(Answer.NO)

    tools = Registry(builtin_tools(), ModePermissions(Mode.ASK, ask))
    context = replace(context, checks=checks)
    await tools.dispatch(ToolCall("1", "run_tests", "{}"), context)
    assert proposed(asked[0]) == ["run_tests", f"  runs: {told}"]
    # Nothing of the project runs before the answer.
    assert not (workspace / "ran").exists()


async def test_a_check_that_would_find_nothing_is_not_asked_about(context: ToolContext) -> None:
    async def ask(approval: Approval) -> Reply:
        raise AssertionError("asked about a check that finds nothing")

    tools = Registry(builtin_tools(), ModePermissions(Mode.ASK, ask))
    result = await tools.dispatch(ToolCall("1", "run_tests", "{}"), context)
    assert "no tests found" in result.content


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
