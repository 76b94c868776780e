"""User hooks: every event, the input that a hook gets, and how it blocks an action."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcli import config
from agentcli.agent.critics import Judgement
from agentcli.agent.state import AgentState, History, Totals
from agentcli.errors import ConfigError
from agentcli.messages import assistant, user
from agentcli.settings import HookSettings
from agentcli.trust import trust
from agentcli.user_hooks import UserHooks
from tests.conftest import Serve
from tests.running import Cli, Ended
from tests.server import Reply

EDIT = Reply(calls=[("write_file", {"path": "a.txt", "content": "hello\n"})])


@pytest.fixture
def hook(cli: Cli) -> Any:
    """Adds a hook: a Python program that finds its input in ``told``."""

    def add(event: str, program: str, **options: Any) -> None:
        folder = cli.home / ".config" / "agentcli"
        folder.mkdir(parents=True, exist_ok=True)
        code = f"import json, os, sys\ntold = json.load(sys.stdin)\n{program}"
        lines = {"event": event, "command": [sys.executable, "-c", code], **options}
        with (folder / "config.toml").open("a") as file:
            file.write("[[hooks]]\n")
            file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())

    return add


@pytest.fixture
def run(cli: Cli, workspace: Path) -> Any:
    def start() -> Ended:
        arguments = ["-p", "Write.", "--model", "openai:m", "--workspace", str(workspace)]
        return cli.run("run", *arguments, "--output", "stream-json")

    return start


def test_the_start_joins_the_system_prompt_and_sees_no_secret(
    cli: Cli, serve: Serve, hook: Any, run: Any
) -> None:
    hook("session_start", "print('Branch: main', os.environ.get('OPENAI_API_KEY'))")
    server = serve([Reply(text="Done.")])
    cli.server = server.url
    assert run().code == 0
    assert "Branch: main None" in server.requests[0].json["messages"][0]["content"]


def test_a_call_is_denied_with_the_reason(
    cli: Cli, serve: Serve, workspace: Path, hook: Any, run: Any
) -> None:
    hook(
        "before_tool",
        "sys.exit(f\"not {told['tool']['arguments']['path']}\" and "
        "(print('never a.txt', file=sys.stderr), 2)[1])",
        match="write_*",
    )
    server = serve([EDIT, Reply(text="Then not.")])
    cli.server = server.url
    assert run().code == 0
    (result,) = [m for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert result["content"] == "denied: never a.txt"
    assert not (workspace / "a.txt").exists()


def test_the_model_hears_what_a_hook_says_of_a_result(
    cli: Cli, serve: Serve, workspace: Path, hook: Any, run: Any
) -> None:
    program = "print(told['result']['paths'], 'not formatted', file=sys.stderr); sys.exit(2)"
    hook("after_tool", program, match="write_file")
    server = serve([EDIT, Reply(text="Done.")])
    cli.server = server.url
    assert run().code == 0
    assert (workspace / "a.txt").read_text() == "hello\n"
    last = server.requests[1].json["messages"][-1]
    assert last["role"] == "user" and "['a.txt'] not formatted" in last["content"]


def test_the_run_ends_only_once_the_hook_agrees(
    cli: Cli, serve: Serve, workspace: Path, hook: Any, run: Any
) -> None:
    hook("stop", "sys.exit(0 if os.path.exists('a.txt') else (print('no', file=sys.stderr), 2)[1])")
    server = serve([Reply(text="Done."), EDIT, Reply(text="Now.")])
    cli.server = server.url
    ended = run()
    assert ended.code == 0
    assert "objects to stopping: no" in server.requests[1].json["messages"][-1]["content"]
    assert ended.events[-1]["final_answer"] == "Now."


def test_a_hook_that_always_objects_cannot_block_the_end_forever(
    cli: Cli, serve: Serve, hook: Any, run: Any
) -> None:
    hook("stop", "sys.exit(2)")
    server = serve([Reply(text=f"Done {n}.") for n in range(4)])
    cli.server = server.url
    ended = run()
    assert ended.code == 0
    assert len(server.requests) == 4
    (told,) = [event["text"] for event in ended.events if event["type"] == "warned"]
    assert "the turn ends although it was objected to 3 times" in told


async def test_each_turn_may_be_objected_to_anew(workspace: Path) -> None:
    script = f"test -e {workspace}/done && exit 0; touch {workspace}/done; exit 2"
    hooks = UserHooks(
        [HookSettings(event="stop", command=("sh", "-c", script))], str(workspace), os.environ
    )
    said = AgentState(task="the same", history=History([user("the same"), assistant("Done.")]))
    for turn in range(5):
        said = replace(said, before=Totals(steps=turn))
        assert (await hooks.review(said)).judgement is Judgement.RETRY
        assert (await hooks.review(said)).judgement is Judgement.CONTINUE
        (workspace / "done").unlink()
    said = replace(said, before=Totals(steps=5))
    for _ in range(3):  # and then it is cut off, for example
        (workspace / "done").unlink(missing_ok=True)
        assert (await hooks.review(said)).judgement is Judgement.RETRY
    (workspace / "done").unlink()
    assert (await hooks.review(said)).judgement is Judgement.CONTINUE
    said = replace(said, before=Totals(steps=6))
    assert (await hooks.review(said)).judgement is Judgement.RETRY
    await hooks.aclose()


def test_failing_hooks_are_reported_and_block_nothing(
    cli: Cli, serve: Serve, workspace: Path, hook: Any, run: Any
) -> None:
    hook("session_start", "sys.exit(3)")
    hook("before_tool", "import time; time.sleep(60)", timeout_s=0.5)
    hook("after_tool", "sys.exit(1)")
    hook("stop", "sys.exit(4)")
    hook("before_tool", "print('not b', file=sys.stderr); sys.exit(2)", match="list_dir")
    hook("after_tool", "print('look again', file=sys.stderr); sys.exit(2)", match="write_file")
    calls = [*EDIT.calls, ("list_dir", {})]
    server = serve([Reply(calls=calls), Reply(text="Done.")])
    cli.server = server.url
    ended = run()
    assert ended.code == 0 and (workspace / "a.txt").exists()
    told = [m["content"] for m in server.requests[1].json["messages"]]
    assert "denied: not b" in told and "look again" in told[-1]
    warned = [event["text"] for event in ended.events if event["type"] == "warned"]
    assert len(warned) == 4 and all(one.startswith("hook ") for one in warned)
    for why in ("exit code 3", "timed out after 0.5 s", "exit code 1", "exit code 4"):
        assert sum(why in one for one in warned) == 1, warned


def test_a_command_line_runs_in_the_shell(
    cli: Cli, serve: Serve, workspace: Path, hook: Any, run: Any
) -> None:
    line = "test -e a.txt || { echo 'none yet' >&2; exit 2; }"
    hook("stop", "", command=line)
    server = serve([Reply(text="Done."), EDIT, Reply(text="Now.")])
    cli.server = server.url
    assert run().code == 0
    last = server.requests[1].json["messages"][-1]["content"]
    assert last == f"hook {line} objects to stopping: none yet"


def test_a_trusted_projects_hooks_join_the_users(tmp_path: Path) -> None:
    user, project = tmp_path / "config.toml", tmp_path / ".agentcli" / "config.toml"
    project.parent.mkdir()
    user.write_text('hooks = [{event = "stop", command = "true"}]')
    project.write_text('[[hooks]]\nevent = "stop"\ncommand = "make check"\n')
    environ = {"AGENTCLI_CONFIG_DIR": str(tmp_path)}
    own = config.load(tmp_path, environ=environ)
    shell = ("/bin/sh", "-c")
    assert [hook.command for hook in own.hooks] == [(*shell, "true")]
    assert "hooks left out" in own.notices[0]
    trust(tmp_path, environ)
    both = config.load(tmp_path, environ=environ)
    assert [hook.command for hook in both.hooks] == [(*shell, "true"), (*shell, "make check")]
    user.write_text('hooks = [{event = "sometimes", command = "true"}]')
    with pytest.raises(ConfigError, match=r"config\.toml: hooks\.0\.event"):
        config.load(tmp_path, environ=environ)
