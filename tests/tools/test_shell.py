"""shell and python: how the end of a command is reported, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.messages import Outcome, ToolCall
from agentcli.tools.base import ToolContext
from agentcli.tools.python import find_python
from agentcli.tools.registry import Registry
from tests.running import running_with, some_seconds
from tests.tools.conftest import TOOLS, Call


async def test_exit_code_output_and_errors(call: Call) -> None:
    result = await call("shell", command="echo out; echo err >&2; exit 3")
    assert (result.outcome, result.content) == (
        Outcome.FAILED,
        "exit code 3\nout\n[stderr]\nerr",
    )
    assert result.data["exit_code"] == 3


async def test_no_output_at_all(call: Call) -> None:
    result = await call("shell", command="true")
    assert (result.outcome, result.content) == (Outcome.OK, "exit code 0")


async def test_it_is_bash_where_there_is_one(call: Call) -> None:
    result = await call("shell", command="a=(1 2); echo ${a[1]}; [[ -n $BASH_VERSION ]]")
    assert result.content == "exit code 0\n2"


async def test_it_runs_in_the_workspace(workspace: Path, call: Call) -> None:
    result = await call("shell", command="cd /; cd - >/dev/null; echo new > 'a file'; pwd -P")
    assert result.content == f"exit code 0\n{workspace.resolve()}"
    assert (workspace / "a file").read_text() == "new\n"


async def test_time_out(call: Call) -> None:
    for patience_s in (1, 20):  # on a busy machine, 1 s may end too early
        result = await call("shell", command="echo started; sleep 600", timeout_s=patience_s)
        assert result.outcome is Outcome.FAILED and result.data["timed_out"] is True
        if "started" in result.content:
            break
    assert result.content == f"timed out after {patience_s} s\nstarted"


async def test_a_background_child_does_not_hold_the_call(call: Call) -> None:
    result = await call("shell", command="sleep 600 & echo done")
    assert result.content == "exit code 0\ndone"


async def test_there_is_no_input(call: Call) -> None:
    assert (await call("shell", command="cat; read x || echo end")).content == "exit code 0\nend"


async def test_colours_and_progress_bars_are_gone(call: Call) -> None:
    result = await call("shell", command=r"printf '\033[31mred\033[0m\n10%%\r99%%\r100%%\n'")
    assert result.content == "exit code 0\nred\n100%"


async def test_output_that_is_not_utf8(call: Call) -> None:
    result = await call("shell", command=r"printf 'caf\351 \000 end'")
    assert result.content == "exit code 0\ncaf\ufffd \0 end"


async def test_five_megabytes_of_output(call: Call, context: ToolContext) -> None:
    result = await call("shell", command="yes line | head -c 5000000; echo last; echo oops >&2")
    assert len(result.content) <= context.output_chars
    assert result.content.startswith("exit code 0\nline\n")
    assert result.content.endswith("\nlast\n[stderr]\noops")
    assert "left out ...]\n" in result.content


async def test_neither_stream_pushes_the_other_out(call: Call) -> None:
    command = "echo first; yes | head -c 200000; echo warning >&2; yes 2 | head -c 200000 >&2"
    content = (await call("shell", command=command)).content
    assert content.startswith("exit code 0\nfirst\n") and "\n[stderr]\nwarning\n" in content


async def test_no_key_of_the_user_is_in_its_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in (await call("shell", command="env")).content


async def test_an_empty_command(call: Call) -> None:
    for command in ("", " \n", "a\0b"):
        result = await call("shell", command=command)
        assert result.outcome is Outcome.ERROR and result.content.startswith('error: "command"')


async def test_bounds_of_the_time_out(call: Call) -> None:
    result = await call("shell", command="true", timeout_s=10_000)
    assert result.content == 'error: arguments: "timeout_s" must be at most 600, got 10000'


async def test_output_is_shown_while_it_arrives(context: ToolContext) -> None:
    seen: list[tuple[str, bytes]] = []
    watching = replace(context, progress=lambda stream, data: seen.append((stream, data)))
    call = ToolCall("1", "shell", json.dumps({"command": "echo a; echo b >&2"}))
    await Registry(TOOLS).dispatch(call, watching)
    assert {name: b"".join(d for n, d in seen if n == name) for name, _ in seen} == {
        "stdout": b"a\n",
        "stderr": b"b\n",
    }


async def test_cancelling_kills_the_command(workspace: Path, context: ToolContext) -> None:
    mark = some_seconds()
    command = f"touch started; sleep {mark}"
    call = ToolCall("1", "shell", json.dumps({"command": command}))
    task = asyncio.create_task(Registry(TOOLS).dispatch(call, context))
    while not (workspace / "started").exists():
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running_with(mark) == []


# python


async def test_a_program_runs_in_the_workspace(workspace: Path, call: Call) -> None:
    (workspace / "stats.py").write_text("def mean(v):\n    return sum(v) / len(v)\n")
    result = await call("python", code="import stats\nprint(stats.mean([1, 2]))")
    assert (result.outcome, result.content) == (Outcome.OK, "exit code 0\n1.5")
    assert not (workspace / "__pycache__").exists()


async def test_a_program_that_fails_shows_its_traceback(call: Call) -> None:
    result = await call("python", code="print('é')\n1/0")
    assert result.outcome is Outcome.FAILED
    assert result.content.startswith("exit code 1\né\n[stderr]\nTraceback")
    assert result.content.endswith("ZeroDivisionError: division by zero")


async def test_a_long_program(call: Call) -> None:
    code = "x = 0\n" + "x += 1\n" * 60_000 + "print(x)"
    assert (await call("python", code=code)).content == "exit code 0\n60000"


async def test_the_workspaces_own_interpreter_goes_first(
    workspace: Path, call: Call, context: ToolContext
) -> None:
    own = workspace / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho "the own one"\n')
    own.chmod(0o755)
    assert (await call("python", code="1")).content == "exit code 0\nthe own one"
    own.write_text("#!/bin/sh\nexit 1\n")
    assert await find_python(context.environment) in ("python", "python3", sys.executable)


async def test_no_interpreter_has_an_unknown_module(context: ToolContext) -> None:
    assert await find_python(context.environment, "no_such_module_anywhere") is None


async def test_agentclis_own_interpreter_is_the_last_resort(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    assert await find_python(context.environment, "jsonschema_rs") == sys.executable


async def test_the_users_limits_hold_for_commands(context: ToolContext) -> None:
    short = replace(context, command=replace(context.command, time_s=0.5, tasks=64))

    async def run(**arguments: object) -> str:
        call = ToolCall("1", "shell", json.dumps({"command": "sleep 60", **arguments}))
        return (await Registry(TOOLS).dispatch(call, short)).content

    assert await run() == "timed out after 0.5 s"
    assert await run(timeout_s=300) == "timed out after 0.5 s"
    program = ToolCall("1", "python", json.dumps({"code": "import time; time.sleep(60)"}))
    assert "timed out after 0.5 s" in (await Registry(TOOLS).dispatch(program, short)).content


async def test_lines_are_counted_before_anything_is_cut(context: ToolContext) -> None:
    narrow = replace(context, output_chars=300)

    async def lines(command: str) -> object:
        call = ToolCall("1", "shell", json.dumps({"command": command}))
        return (await Registry(TOOLS).dispatch(call, narrow)).data["lines"]

    assert await lines("seq 5000; echo one >&2") == 5001
    assert await lines("true") == 0
