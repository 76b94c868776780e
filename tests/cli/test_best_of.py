"""``agentcli run --best-of N``: attempts run on copies; the first that passes is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.running import Cli, Ended
from tests.server import Reply


def writing(text: str) -> list[Reply]:
    """The replies of one attempt: read and write the file, then report the answer."""
    read = ("read_file", {"path": "answer.txt"})
    edit = ("write_file", {"path": "answer.txt", "content": f"{text}\n"})
    return [Reply(calls=[read, edit]), Reply(text=f"It is {text}.")]


def run(cli: Cli, workspace: Path, *options: str) -> Ended:
    arguments = ["-p", "Find the answer.", "--model", "openai:m", "--workspace", str(workspace)]
    return cli.run("run", *arguments, "--output", "json", *options)


def test_the_first_that_passes_is_kept(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "answer.txt").write_text("0\n")
    wrong = [*writing("41"), *[Reply(text="I say it is 41.")] * 3]
    cli.server = serve([*wrong, *writing("42"), *writing("never")]).url
    ended = run(cli, workspace, "--best-of", "3", "--check", "grep -qx 42 answer.txt")
    assert ended.code == 0, ended.err
    assert (workspace / "answer.txt").read_text() == "42\n"
    assert ended.json["status"] == "solved" and ended.json["final_answer"] == "It is 42."
    assert "attempt 2 of 3" in ended.err and "attempt 3 of 3" not in ended.err
    assert cli.server and len(cli.run("sessions", "list").out.splitlines()) == 2


def test_nothing_changes_if_no_attempt_passes(cli: Cli, serve: Serve, workspace: Path) -> None:
    (workspace / "answer.txt").write_text("0\n")
    wrong = [*writing("41"), *[Reply(text="I say it is 41.")] * 3]
    cli.server = serve(wrong * 2).url
    ended = run(cli, workspace, "--best-of", "2", "--check", "grep -qx 42 answer.txt")
    assert ended.code == 1 and ended.json["status"] == "unsolved"
    assert (workspace / "answer.txt").read_text() == "0\n"
    assert "none of 2 attempts passed; nothing was changed" in ended.err


def test_a_provider_that_fails_is_not_asked_for_more(
    cli: Cli, serve: Serve, workspace: Path
) -> None:
    cli.server = serve([Reply(status=401)]).url
    ended = run(cli, workspace, "--best-of", "3", "--check", "true")
    assert ended.code == 3 and "attempt 2" not in ended.err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--best-of", "2"], "--best-of chooses by checks"),
        (["--best-of", "2", "--check", "true", "--mode", "plan"], "plan mode makes none"),
        (["--best-of", "2", "--check", "true", "--env", "docker:x"], "of this machine"),
        (["--best-of", "0", "--check", "true"], "--best-of"),
    ],
)
def test_unsupported_options_are_rejected(
    cli: Cli, workspace: Path, options: list[str], complaint: str
) -> None:
    ended = run(cli, workspace, *options)
    assert ended.code == 2 and complaint in ended.err
