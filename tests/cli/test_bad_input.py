"""Bad input: one line says what is wrong, where, and what to do; with the documented exit code."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from agentcli.cli.main import main, unsupported
from tests.conftest import Serve
from tests.running import Cli, Ended
from tests.server import Reply


def run(cli: Cli, *arguments: str, stdin: bytes = b"") -> Ended:
    """Call ``agentcli run``; its stderr must be the error line and nothing else."""
    ended = cli.call("run", *arguments, "--output", "json", stdin=stdin)
    assert ended.err.count("\n") == 1, ended.err
    return ended


@pytest.fixture
def task(tmp_path: Path) -> str:
    path = tmp_path / "task.md"
    path.write_text("Do it.\n")
    return str(path)


# -- the model ------------------------------------------------------------------------------------


def test_no_key(cli: Cli, task: str, workspace: Path) -> None:
    cli.extra = {"OPENAI_API_KEY": ""}
    arguments = ["--model", "openai:gpt-5", "--workspace", str(workspace), "--output", "json"]
    ended = cli.run("run", task, *arguments)
    assert ended.err.count("\n") == 1, ended.err
    assert ended.code in (2, 3)
    assert "OPENAI_API_KEY" in ended.error


def test_no_key_and_no_model_on_this_machine(
    cli: Cli, task: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.extra = {"OPENAI_API_KEY": ""}
    monkeypatch.setitem(sys.modules, "torch", None)  # as where the extra is not installed
    ended = run(cli, task, "--workspace", str(workspace))
    assert ended.code == 2
    assert "missing: torch" in ended.error and "OPENAI_API_KEY" in ended.error


def test_a_recording_that_is_none(cli: Cli, task: str, workspace: Path) -> None:
    ended = run(cli, task, "--model", f"replay:{task}", "--workspace", str(workspace))
    assert ended.code in (2, 5)
    assert task in ended.error


def test_a_recording_that_is_not_there(cli: Cli, task: str, workspace: Path) -> None:
    for name in ("missing.jsonl", str(workspace)):
        ended = run(cli, task, "--model", f"replay:{name}", "--workspace", str(workspace))
        assert (ended.code, ended.error.count(f"{name}: no such file")) == (2, 1)


def test_a_wrong_key(cli: Cli, serve: Serve, task: str, workspace: Path) -> None:
    server = serve([Reply(status=401, code="invalid_api_key", message="Incorrect API key")])
    cli.server = server.url
    ended = run(cli, task, "--model", "openai:gpt-5", "--workspace", str(workspace))
    assert ended.code == 3
    assert "OPENAI_API_KEY" in ended.error
    assert ended.json["stop_reason"] == "provider_failed"
    assert len(server.requests) == 1, "a wrong key is not tried again"


def test_a_model_that_the_provider_does_not_know(
    cli: Cli, serve: Serve, task: str, workspace: Path
) -> None:
    server = serve([Reply(status=404, code="model_not_found", message="no such model")])
    cli.server = server.url
    ended = run(cli, task, "--model", "openai:gpt-none", "--workspace", str(workspace))
    assert ended.code == 3
    assert "gpt-none" in ended.error


def test_an_unknown_provider(cli: Cli, task: str, workspace: Path) -> None:
    ended = run(cli, task, "--model", "nobody:gpt", "--workspace", str(workspace))
    assert ended.code == 2
    assert "nobody" in ended.error and "openai" in ended.error


@pytest.mark.parametrize("model", ["", "openai:", ":x", "gpt"])
def test_a_model_without_a_proper_name(cli: Cli, task: str, workspace: Path, model: str) -> None:
    ended = run(cli, task, "--model", model, "--workspace", str(workspace))
    assert ended.code == 2
    assert ended.error


def test_a_server_that_cannot_be_reached(cli: Cli, task: str, workspace: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        cli.server = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        cli.extra = {"AGENTCLI_RETRIES": "0"}
        ended = run(cli, task, "--model", "openai:gpt-5", "--workspace", str(workspace))
    assert ended.code == 3
    assert cli.server.removeprefix("http://").removesuffix("/v1") in ended.error


# -- the task -------------------------------------------------------------------------------------


def test_no_task(cli: Cli) -> None:
    ended = run(cli)
    assert ended.code == 2
    assert "TASK" in ended.error


def test_two_tasks(cli: Cli, task: str) -> None:
    ended = run(cli, task, "-p", "Do that.")
    assert ended.code == 2
    assert "-p" in ended.error


def test_a_task_that_is_missing(cli: Cli, tmp_path: Path) -> None:
    ended = run(cli, str(tmp_path / "none.md"))
    assert ended.code == 2
    assert str(tmp_path / "none.md") in ended.error


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"---\nmodel: openai:x\n---\n\n"])
def test_a_task_that_is_empty(cli: Cli, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.md").write_bytes(content)
    ended = run(cli, str(tmp_path / "empty.md"))
    assert ended.code == 2
    assert "empty.md" in ended.error and "empty" in ended.error.replace("empty.md", "")


def test_a_task_that_is_a_folder(cli: Cli, tmp_path: Path) -> None:
    ended = run(cli, str(tmp_path))
    assert ended.code == 2
    assert str(tmp_path) in ended.error and "folder" in ended.error


@pytest.mark.parametrize("content", [b"caf\xe9\n", "Tu es.\n".encode("utf-16"), b"\xff\x00"])
def test_a_task_that_is_not_utf8(cli: Cli, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "task.md").write_bytes(content)
    ended = run(cli, str(tmp_path / "task.md"))
    assert ended.code == 2
    assert "task.md" in ended.error and "UTF-8" in ended.error


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe"])
def test_stdin_that_is_no_task(cli: Cli, content: bytes) -> None:
    ended = run(cli, "-", stdin=content)
    assert ended.code == 2
    assert "stdin" in ended.error or "standard input" in ended.error


def test_an_empty_prompt(cli: Cli) -> None:
    assert run(cli, "-p", " ").code == 2


@pytest.mark.parametrize(
    ("front", "named"),
    [
        ("max_stepz: 3", "max_stepz"),
        ("max_steps: many", "max_steps"),
        ("max_steps: 0", "max_steps"),
        ("checks: {a: b}", "checks"),
        ("model: [1", "task.md"),
        ("- just\n- a list", "task.md"),
    ],
)
def test_front_matter_that_is_wrong(cli: Cli, tmp_path: Path, front: str, named: str) -> None:
    (tmp_path / "task.md").write_text(f"---\n{front}\n---\nDo it.\n")
    ended = run(cli, str(tmp_path / "task.md"))
    assert ended.code == 2
    assert named in ended.error and "task.md" in ended.error


# -- the workspace and the options ----------------------------------------------------------------


def test_a_workspace_that_does_not_exist(cli: Cli, task: str, tmp_path: Path) -> None:
    ended = run(cli, task, "--model", "openai:x", "--workspace", str(tmp_path / "nowhere"))
    assert ended.code == 2
    assert str(tmp_path / "nowhere") in ended.error and "plan" not in ended.error


def test_a_workspace_that_is_a_file(cli: Cli, task: str) -> None:
    ended = run(cli, task, "--model", "openai:x", "--workspace", task)
    assert ended.code == 2
    assert task in ended.error


def test_a_workspace_that_cannot_be_written(cli: Cli, task: str, workspace: Path) -> None:
    # Not even root can make a file in /proc.
    if os.geteuid() == 0:
        workspace = Path("/proc")
    else:
        workspace.chmod(0o555)
    ended = run(cli, task, "--model", "openai:x", "--workspace", str(workspace))
    assert ended.code == 2
    assert str(workspace) in ended.error and "writ" in ended.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max-steps", "0"], "--max-steps"),
        (["--max-steps", "x"], "--max-steps"),
        (["--timeout", "-1"], "--timeout"),
        (["--budget-tokens", "0"], "--budget-tokens"),
        (["--mode", "wild"], "--mode"),
        (["--check", ""], "--check"),
        (["--session", "../x"], "../x"),
        (["--session", "20000101-000000-abcdef"], "20000101-000000-abcdef"),
        (["--nonsense"], "--nonsense"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense(
    cli: Cli, task: str, workspace: Path, arguments: list[str], named: str
) -> None:
    ended = run(cli, task, "--model", "openai:x", "--workspace", str(workspace), *arguments)
    assert ended.code == 2
    assert named in ended.error


def test_an_unknown_mode(cli: Cli) -> None:
    error = run(cli, "-p", "x", "--mode", "yolo").error
    modes = "'ask', 'edits', 'auto', 'plan'"
    assert error.startswith(f"Invalid value for '--mode': 'yolo' is not one of {modes}")


def test_an_unknown_output_format(cli: Cli, task: str) -> None:
    ended = cli.run("run", task, "--output", "xml")
    assert ended.code == 2
    assert "--output" in ended.error


def test_an_unknown_command(cli: Cli) -> None:
    ended = cli.run("fly")
    assert ended.code == 2
    assert "fly" in ended.error and "agentcli --help" in ended.error


def test_a_setting_that_is_unknown(cli: Cli, task: str, workspace: Path) -> None:
    folder = workspace / ".agentcli"
    folder.mkdir()
    (folder / "config.toml").write_text('modell = "openai:x"\n')
    ended = run(cli, task, "--model", "openai:x", "--workspace", str(workspace))
    assert ended.code == 2
    assert "modell" in ended.error and "config.toml" in ended.error


# -- the machine ----------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_written(
    cli: Cli, serve: Serve, task: str, workspace: Path
) -> None:
    server = serve([Reply(text="Hello.")])
    cli.server = server.url
    (cli.home / "data").write_text("a file where the folder should be")
    ended = run(cli, task, "--model", "openai:x", "--workspace", str(workspace))
    assert ended.code == 5
    assert str(cli.home / "data") in ended.error
    assert server.requests == [], "nothing goes on unrecorded"


def test_windows_is_pointed_to_wsl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert main(["--version"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "WSL" in err
    assert not unsupported("linux") and not unsupported("darwin")


def test_a_bug_is_one_line_and_a_saved_traceback(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    # A module that fails on import stands for any bug in agentcli.
    (broken / "sitecustomize.py").write_text(
        "import sys\nsys.modules['agentcli.cli.tools'] = None\n"
    )
    cli.extra = {"PYTHONPATH": str(broken), "XDG_STATE_HOME": str(tmp_path / "state")}
    ended = cli.run("tools")
    assert ended.code == 5
    assert ended.err.count("\n") == 1
    (saved,) = (tmp_path / "state").rglob("crash-*.txt")
    assert str(saved) in ended.error
    assert "Traceback (most recent call last)" in saved.read_text()
    assert saved.stat().st_mode & 0o777 == 0o600
