"""Unplanned ends: kill -9 at every kind of event, Ctrl+C, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentcli.agent.events import RunFinished, SessionStarted, StopReason, ToolFinished, ToolStarted
from agentcli.agent.folding import fold_all
from agentcli.messages import Outcome, validate_history
from agentcli.session.journal import read_events
from agentcli.session.store import interrupted
from tests.conftest import Serve
from tests.running import (
    Cli,
    Popen,
    descendants,
    end,
    repository,
    running_with,
    some_seconds,
    survivors,
    without_level,
)
from tests.server import Reply

CHECK = "test -f done.txt && sleep 0.5"  # the sleep leaves time to kill the run during the check

# Kinds of events in the order in which the script produces them. "delta" comes from a slow answer,
# "tool_progress" from a long command.
KINDS = [
    *("session", "message_added", "task_given", "step_started", "stage_started", "delta"),
    *("model_answered", "tool_started", "tool_progress", "tool_finished", "phase_changed"),
    *("step_finished", "retry_scheduled", "answer_rejected", "check_finished"),
]


def script(sleep_s: str) -> list[Reply]:
    """A run with every kind of event, which also leaves a detached process in the background."""
    leave = f"(setsid sleep {sleep_s} >/dev/null 2>&1 &) ; echo started; sleep 1"
    return [
        Reply(text="A look around.", calls=[("list_dir", {})], pause_s=0.01, split=64),
        Reply(calls=[("shell", {"command": leave})]),
        Reply(status=503, headers={"retry-after": "0.2"}),
        Reply(text=""),
        Reply(text="Done too early."),
        Reply(calls=[("write_file", {"path": "done.txt", "content": "yes\n"})]),
        Reply(text="Done."),
    ]


def begin(cli: Cli, workspace: Path, *more: str) -> Popen:
    """Start a run whose events can be read as they happen."""
    return cli.start(
        *("run", "-p", "Make it.", "--model", "openai:scripted", "--check", CHECK),
        *("--workspace", str(workspace), "--output", "stream-json", *more),
        # The tests may run under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def read_until(process: Popen, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read up to the first wanted event and return it."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if wanted(event):
            return event
    pytest.fail(f"the run ended before: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9(
    kind: str, cli: Cli, serve: Serve, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process survives, and the next start names the session or resumes it."""
    repository(workspace, {"a.txt": "a\n"})
    sleep_s = f"9{os.getpid()}.{KINDS.index(kind) + 10}"
    cli.server = serve(script(sleep_s)).url
    process = begin(cli, workspace)
    event = read_until(process, lambda event: event["type"] == kind)
    tree = descendants(process.pid)
    end(process, signal.SIGKILL)

    assert survivors([*tree, *running_with(sleep_s)]) == []
    (path,) = cli.journals()
    events = list(read_events(path))
    assert isinstance(events[0], SessionStarted)
    assert not any(isinstance(event, RunFinished) for event in events)
    if "step" in event and kind not in ("delta", "stage_started"):
        state = fold_all(events)
        assert max(state.step, state.running_step) >= event["step"]

    name = path.parent.name
    run = ("run", "--model", "openai:scripted", "--workspace", str(workspace))
    if kind in ("session", "message_added"):  # killed before the task was recorded
        cli.server = serve([Reply(text="Hello.")]).url
        again = cli.run(*run, "-p", "Hi.")
        assert f"agentcli run --session {name}" in again.err
        return
    monkeypatch.setenv("AGENTCLI_DATA_DIR", cli.env["AGENTCLI_DATA_DIR"])
    assert [session.id for session in interrupted(workspace)] == [name]
    done = {"path": "done.txt", "content": "yes\n"}
    cli.server = serve([Reply(calls=[("write_file", done)]), Reply(text="Done after all.")]).url
    resumed = cli.run(*run, "--session", name, "--output", "json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["final_answer"] == "Done after all."
    validate_history(list(fold_all(read_events(path)).history))


def test_an_edit_that_ended_before_kill_9_is_known(cli: Cli, serve: Serve, workspace: Path) -> None:
    """Its step never ended, but undo takes it back, and it is listed as changed."""
    (workspace / "a.txt").write_text("before\n")
    calls = [
        ("read_file", {"path": "a.txt"}),
        ("write_file", {"path": "a.txt", "content": "after\n"}),
        ("shell", {"command": "echo here; sleep 60"}),
    ]
    cli.server = serve([Reply(calls=calls)]).url
    process = begin(cli, workspace)
    read_until(process, lambda event: event["type"] == "tool_progress")
    tree = descendants(process.pid)
    end(process, signal.SIGKILL)

    assert survivors(tree) == []
    assert (workspace / "a.txt").read_text() == "after\n"
    assert fold_all(cli.journal()).files_changed == ("a.txt",)
    (path,) = cli.journals()
    undone = cli.run("sessions", "undo", path.parent.name, "--yes")
    assert undone.code == 0, undone.err
    assert (workspace / "a.txt").read_text() == "before\n"


def test_a_torn_last_line_is_set_aside(cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve(script(some_seconds())).url
    process = begin(cli, workspace)
    read_until(process, lambda event: event["type"] == "step_finished")
    end(process, signal.SIGKILL)
    (path,) = cli.journals()
    whole = list(read_events(path))
    with open(path, "ab") as file:
        file.write(b'{"v":1,"n":99,"kind":"step_st')
    assert list(read_events(path)) == whole
    shown = cli.run("sessions", "show", path.parent.name)
    assert shown.code == 0
    assert "interrupted" in cli.run("sessions", "list").out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_while_a_tool_runs(
    number: signal.Signals, code: int, cli: Cli, serve: Serve, workspace: Path
) -> None:
    sleep_s = f"8{os.getpid()}.{int(number)}"
    calls = [("shell", {"command": f"echo here; sleep {sleep_s}"}), ("list_dir", {})]
    cli.server = serve([Reply(calls=calls)]).url
    process = begin(cli, workspace)
    read_until(process, lambda event: event["type"] == "tool_progress")
    tree = descendants(process.pid)
    assert running_with(sleep_s)
    ended = end(process, number)
    assert ended.code == code
    assert survivors([*tree, *running_with(sleep_s)]) == []
    result = ended.json
    assert (result["type"], result["status"]) == ("result", "cancelled")

    events = cli.journal()
    assert isinstance(events[-1], RunFinished)
    assert events[-1].reason is StopReason.CANCELLED
    started = {event.call.name for event in events if isinstance(event, ToolStarted)}
    outcomes = {
        event.result.name: event.result.outcome
        for event in events
        if isinstance(event, ToolFinished)
    }
    assert "shell" in started and outcomes["shell"] is Outcome.CANCELLED
    assert set(outcomes) == {"shell", "list_dir"}
    validate_history(list(fold_all(events).history))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_model_answers(
    number: signal.Signals, code: int, cli: Cli, serve: Serve, workspace: Path
) -> None:
    cli.server = serve([Reply(text="A long answer " * 100, stall_after=2000)]).url
    process = begin(cli, workspace)
    read_until(process, lambda event: event["type"] == "delta")
    ended = end(process, number)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert isinstance(cli.journal()[-1], RunFinished)


def test_a_run_under_nohup_outlives_its_terminal(cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve([Reply(text="A long answer " * 20, delay_s=0.3), Reply(text="never")]).url
    arguments = ("run", "-p", "go", "--model", "openai:x", "--workspace", str(workspace))
    process = cli.start(
        *arguments,
        *("--output", "stream-json"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    read_until(process, lambda event: event["type"] == "step_started")
    ended = end(process, signal.SIGHUP)
    assert ended.code == 0, ended.err
    assert fold_all(cli.journal()).stop is StopReason.FINAL


def test_a_signal_before_anything_began(cli: Cli, workspace: Path) -> None:
    process = cli.start(
        *("run", "-", "--model", "openai:x", "--workspace", str(workspace)), stdin=-1
    )
    # Wait until it reads the task from its stdin.
    deadline = time.monotonic() + 60
    while not _waits_for_stdin(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = end(process, signal.SIGINT)
    assert ended.code == 130
    assert ended.err == ""


def _waits_for_stdin(process: Popen) -> bool:
    try:
        where = Path(f"/proc/{process.pid}/wchan").read_text()
    except OSError:
        return psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING
    return "pipe_read" in where or "anon_pipe_read" in where


def test_a_reader_that_leaves_ends_the_run_quietly(cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve([Reply(calls=[("list_dir", {})])], repeat=True).url
    process = begin(cli, workspace)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert without_level(process.stderr.read()) == ""
    process.stderr.close()
    assert isinstance(cli.journal()[-1], RunFinished)
