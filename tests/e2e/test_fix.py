"""The main use: ``agentcli run`` makes a failing test in a git repository pass."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentcli.agent.events import (
    CheckFinished,
    ModelAnswered,
    RunFinished,
    SessionStarted,
    TaskGiven,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.records import kind
from agentcli.messages import Outcome
from tests.conftest import Serve
from tests.running import KEY, Cli, Ended, git, repository, without_level
from tests.server import Reply, ScriptedServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "fix-median"
OLD = "    return ordered[middle]\n"
NEW = (
    "    if len(ordered) % 2:\n"
    "        return ordered[middle]\n"
    "    return (ordered[middle - 1] + ordered[middle]) / 2\n"
)
CHECK = "python -m pytest -q -p no:cacheprovider"
SCRIPT = [
    Reply(text="I look at the failure first.", calls=[("run_tests", {})]),
    Reply(
        calls=[
            ("read_file", {"path": "quickstats/averages.py"}),
            ("grep", {"pattern": "def median", "path": "."}),
        ]
    ),
    Reply(
        calls=[("search_replace", {"path": "quickstats/averages.py", "old": OLD, "new": NEW})],
        split=7,
    ),
    Reply(calls=[("run_tests", {})]),
    Reply(text="`median` now averages the middle two values of an even count."),
]


def example(workspace: Path) -> Path:
    """The repository of the example."""
    files = {
        str(path.relative_to(EXAMPLE / "repo")): path.read_bytes()
        for path in (EXAMPLE / "repo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return repository(workspace, files)


@pytest.fixture
def repo(workspace: Path) -> Path:
    return example(workspace)


@pytest.fixture
def server(serve: Serve) -> ScriptedServer:
    return serve(SCRIPT)


def run(cli: Cli, server: ScriptedServer, repo: Path, *more: str) -> Ended:
    cli.server = server.url
    return cli.run(
        *("run", str(EXAMPLE / "task.md"), "--model", "openai:scripted"),
        *("--workspace", str(repo), *more),
    )


@dataclass
class Solved:
    """A run that solved the task, with its repository and journal."""

    ended: Ended
    server: ScriptedServer
    repo: Path
    cli: Cli


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Solved:
    home = tmp_path_factory.mktemp("home")
    cli, repo = Cli(home), example(tmp_path_factory.mktemp("repo"))
    with ScriptedServer(SCRIPT) as server:
        return Solved(run(cli, server, repo, "--output", "stream-json"), server, repo, cli)


def test_the_failing_test_is_fixed(solved: Solved) -> None:
    ended, server, repo = solved.ended, solved.server, solved.repo
    assert ended.code == 0, ended.err
    assert without_level(ended.err) == ""
    result = ended.json
    assert {name: result[name] for name in ("status", "stop_reason", "steps", "files_changed")} == {
        "status": "solved",
        "stop_reason": "final",
        "steps": 5,
        "files_changed": ["quickstats/averages.py"],
    }
    assert result["final_answer"] == SCRIPT[-1].text
    assert result["usage"]["input_tokens"] == 500
    assert result["checks"] == [{"command": CHECK, "passed": True, "exit_code": 0}]
    assert git(repo, "status", "--short") == " M quickstats/averages.py\n"
    assert NEW in (repo / "quickstats/averages.py").read_text()
    assert server.faults == []
    assert server.left == 0


def test_the_model_reads_what_really_happened(solved: Solved) -> None:
    last = solved.server.requests[-1].json["messages"]
    assert last[0]["role"] == "system"
    assert "Find out why" in last[1]["content"]
    results = [message["content"] for message in last if message["role"] == "tool"]
    assert results[0].startswith("tests failed (exit code 1)\n$ ")
    assert "assert 3 == 2.5" in results[0]
    assert "\ndef median" not in results[1] and "\tdef median(values" in results[1]
    assert results[2].startswith("quickstats/averages.py:16: def median(")
    assert results[3] == "replaced 1 occurrence in quickstats/averages.py at line 22"
    assert results[4].startswith("tests passed\n$ ")


def test_the_journal_holds_it_all_and_no_key(solved: Solved) -> None:
    events = solved.cli.journal()
    assert isinstance(events[0], SessionStarted)
    assert isinstance(events[-1], RunFinished)
    assert {kind(event) for event in events} >= {"task_given", "step_started", "step_finished"}
    assert sum(isinstance(event, ModelAnswered) for event in events) == 5
    assert sum(isinstance(event, TaskGiven) for event in events) == 1
    (check,) = (event for event in events if isinstance(event, CheckFinished))
    assert check.passed
    started = [event.call.id for event in events if isinstance(event, ToolStarted)]
    finished = [event.result for event in events if isinstance(event, ToolFinished)]
    assert sorted(started) == sorted(result.call_id for result in finished)
    assert [result.outcome for result in finished if result.name == "run_tests"] == [
        Outcome.FAILED,
        Outcome.OK,
    ]
    (path,) = solved.cli.journals()
    assert KEY.encode() not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_in_the_current_folder_with_plain_lines_and_the_answer_alone_on_stdout(
    cli: Cli, server: ScriptedServer, repo: Path
) -> None:
    cli.server = server.url
    task = shutil.copy(EXAMPLE / "task.md", cli.home)
    ended = cli.run("run", str(task), "--model", "openai:scripted", cwd=repo)
    assert ended.code == 0, ended.err
    assert ended.out == f"{SCRIPT[-1].text}\n"
    assert "\x1b" not in ended.err
    for expected in (
        "sandbox ",
        "I look at the failure first.\n",
        "> run_tests\n  tests failed (exit code 1) [failed]",
        "> search_replace quickstats/averages.py\n  replaced 1 occurrence",
        "  +    if len(ordered) % 2:\n",
        f"check passed: {CHECK}\n",
        "\nsolved · 5 steps",
        "changed quickstats/averages.py\n",
    ):
        assert expected in ended.err


def test_stream_json(solved: Solved) -> None:
    events = solved.ended.events
    assert (events[0]["type"], events[-1]["type"]) == ("session", "result")
    assert events[-1]["status"] == "solved"
    assert events[-1]["session_id"] == events[0]["session_id"]
    text = "".join(
        event["delta"]["text"]
        for event in events
        if event["type"] == "delta" and event["delta"]["kind"] == "TextDelta" and event["step"] == 5
    )
    assert text == SCRIPT[-1].text


def test_a_failing_check_is_handed_back_and_ends_unsolved(
    cli: Cli, serve: Serve, repo: Path
) -> None:
    server = serve([Reply(text="All is well.")], repeat=True)
    ended = run(cli, server, repo, "--output", "json", "--check", "true")
    assert ended.code == 1
    assert (ended.json["status"], ended.json["stop_reason"]) == ("unsolved", "final")
    # The checks of the option are added to those of the task.
    assert {check["command"]: check["passed"] for check in ended.json["checks"]} == {
        CHECK: False,
        "true": True,
    }
    assert "assert 3 == 2.5" in server.requests[1].json["messages"][-1]["content"]


def test_plan_mode_changes_nothing(cli: Cli, server: ScriptedServer, repo: Path) -> None:
    before = git(repo, "status", "--short")
    cli.server = server.url
    ended = cli.run(
        *("run", "-p", "Plan it.", "--model", "openai:scripted", "--workspace", str(repo)),
        *("--mode", "plan", "--output", "json"),
    )
    assert ended.code == 0, ended.err
    assert ended.json["files_changed"] == []
    assert git(repo, "status", "--short") == before
    assert OLD in (repo / "quickstats/averages.py").read_text()


def test_a_limit_of_steps_stops_the_run_and_the_session_goes_on(
    cli: Cli, server: ScriptedServer, repo: Path
) -> None:
    ended = run(cli, server, repo, "--max-steps", "2")
    assert ended.code == 1
    assert "stopped · budget_steps · 2 steps" in ended.err
    (path,) = cli.journals()
    assert f"agentcli run --session {path.parent.name}" in ended.err

    ended = cli.run(
        *("run", "--session", path.parent.name, "--model", "openai:scripted"),
        # Without --max-steps, the limit of the first run would apply again.
        *("--workspace", str(repo), "--output", "json", "--max-steps", "9"),
    )
    assert ended.code == 0, ended.err
    assert ended.json["session_id"] == path.parent.name
    assert ended.json["steps"] == 3, "two of the five were the first run's"
    assert server.left == 0 and server.faults == []


@pytest.mark.parametrize("source", ["-", "-p"])
def test_the_task_may_come_from_stdin_or_the_command_line(
    cli: Cli, serve: Serve, repo: Path, source: str
) -> None:
    server = serve([Reply(text="Hello.")])
    cli.server = server.url
    text = "Say hello to Zoë."
    ended = cli.run(
        *("run", *([source] if source == "-" else [source, text])),
        *("--model", "openai:scripted", "--workspace", str(repo)),
        stdin=text.encode(),
    )
    assert (ended.code, ended.out) == (0, "Hello.\n")
    assert server.requests[0].json["messages"][-1]["content"] == text


@pytest.mark.parametrize(
    ("limit", "reason"),
    [(["--timeout", "1.5"], "budget_time"), (["--budget-tokens", "150"], "budget_tokens")],
)
def test_limits(cli: Cli, serve: Serve, repo: Path, limit: list[str], reason: str) -> None:
    busy = Reply(calls=[("shell", {"command": "sleep 1"})])
    server = serve([busy], repeat=True)
    cli.server = server.url
    ended = cli.run(
        *("run", "-p", "Go on.", "--model", "openai:scripted", "--workspace", str(repo)),
        *("--output", "json", *limit),
    )
    assert ended.code == 1
    assert (ended.json["status"], ended.json["stop_reason"]) == ("stopped", reason)
    assert ended.json["steps"] <= 2
