"""``agentcli chat`` without a screen, and its errors for wrong command lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.agent.events import SessionStarted, TaskGiven
from tests.running import BIN, Cli
from tests.server import Reply, ScriptedServer


def test_lines_of_a_pipe_are_messages(
    cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer]
) -> None:
    (workspace / "a.txt").write_text("old\n")
    edit = {"path": "a.txt", "old": "old", "new": "new"}
    server = serve(
        [
            Reply(text="I change it.", calls=[("search_replace", edit)]),
            Reply(text="It is **done**."),
            Reply(text="Nothing else."),
        ]
    )
    cli.server = server.url
    lines = "change it\n/cost\n!cat a.txt\nanything\\\nelse?\n/nonsense\n/quit\nnever said\n"
    ended = cli.run(
        *("chat", "--plain", "--mode", "edits", "--model", "openai:scripted"),
        stdin=lines.encode(),
        cwd=workspace,
    )
    assert ended.code == 0, ended.err
    assert ended.out == "It is **done**.\nNothing else.\n"  # only the answers
    for seen in ("I change it.", "search_replace a.txt", "200 tokens", "exit code 0\nnew"):
        assert seen in ended.err
    assert "there is no command /nonsense" in ended.err
    assert server.requests[2].json["messages"][-1]["content"] == "anything\nelse?"
    assert len(server.requests) == 3
    assert (workspace / "a.txt").read_text() == "new\n"


def test_a_line_that_is_not_utf_8_is_a_message_too(
    workspace: Path, cli: Cli, serve: Callable[..., ScriptedServer]
) -> None:
    server = serve([Reply(text="Coffee."), Reply(text="Bye.")])
    cli = replace(cli, server=server.url, extra={"PYTHONIOENCODING": "utf-8:strict"})
    lines = "what is café?\nthanks\n".encode("latin-1")
    ended = cli.run("chat", "--plain", "--model", "openai:x", stdin=lines, cwd=workspace)
    assert (ended.code, ended.out) == (0, "Coffee.\nBye.\n"), ended.err
    assert server.requests[0].json["messages"][-1]["content"] == "what is caf\ufffd?"


def test_without_anybody_to_ask_the_answer_is_no(
    cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer]
) -> None:
    cli.server = serve(
        [Reply(calls=[("shell", {"command": "touch made"})]), Reply(text="So be it.")]
    ).url
    ended = cli.run("chat", "--plain", "--model", "openai:x", stdin=b"go\n", cwd=workspace)
    assert (ended.code, ended.out) == (0, "So be it.\n")
    assert "nobody can be asked" in ended.err and not (workspace / "made").exists()


def test_a_session_goes_on(cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer]) -> None:
    server = serve([Reply(text="first"), Reply(text="second")])
    cli.server = server.url
    for more in ((), ("--continue",)):
        arguments = ("chat", "--plain", "--model", "openai:x", *more)
        assert cli.run(*arguments, stdin=b"hello\n", cwd=workspace).code == 0
    assert len(cli.journals()) == 1
    said = [message["content"] for message in server.requests[1].json["messages"]]
    assert said.count("hello") == 2 and "first" in said


def test_options_of_run_hold_in_a_chat_and_a_session_keeps_its_model(
    cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer]
) -> None:
    server = serve([Reply(text="first"), Reply(text="second")])
    cli.server = server.url
    settings = cli.home / ".config" / "agentcli" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("[profiles.careful]\nmode = 'plan'\n")
    options = ("--network", "loopback", "--budget-tokens", "100000", "--profile", "careful")
    begun = cli.run("--plain", "--model", "openai:x", *options, stdin=b"hello\n", cwd=workspace)
    assert begun.code == 0, begun.err
    (opened,) = [event for event in cli.journal() if isinstance(event, SessionStarted)]
    (given,) = [event for event in cli.journal() if isinstance(event, TaskGiven)]
    assert (opened.network, opened.mode, given.limits["tokens"]) == ("loopback", "plan", 100_000)
    undecided = cli.run("--plain", "--resume", stdin=b"\nhello\n", cwd=workspace)
    assert undecided.code == 2 and "error: no session was chosen" in undecided.err
    ended = cli.run("--plain", "--continue", stdin=b"and now?\n", cwd=workspace)
    assert (ended.code, server.requests[1].json["model"]) == (0, "x"), ended.err


def test_a_budget_given_again_replaces_that_of_the_session(
    cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer]
) -> None:
    cli.server = serve([Reply(text="first"), Reply(text="second")]).url
    for more in (("--budget-tokens", "100000"), ("--budget-tokens", "200000", "--continue")):
        ended = cli.run("--plain", "--model", "openai:x", *more, stdin=b"hello\n", cwd=workspace)
        assert ended.code == 0, ended.err
    given = [event for event in cli.journal() if isinstance(event, TaskGiven)]
    assert [task.limits["tokens"] for task in given] == [100_000, 200_000]


@pytest.mark.parametrize("buffered", ["", "1"])
def test_streams_that_a_chat_cannot_use(
    cli: Cli, workspace: Path, serve: Callable[..., ScriptedServer], buffered: str
) -> None:
    cli.server = serve([Reply(text="first")]).url
    cli.extra = {**cli.extra, "PYTHONUNBUFFERED": buffered}

    def ended(redirection: str) -> tuple[int, str]:
        command = f"echo hello | {BIN}/agentcli --plain --model openai:x {redirection}"
        run = cli.shell(command, workspace)
        return run.code, run.err.splitlines()[-1]

    assert ended(">/dev/full") == (
        5,
        "agentcli: error: cannot write the output: No space left on device",
    )
    code, said = ended("<&-")
    assert code == 2 and said.startswith("agentcli: error: standard input is closed")


def test_alone_without_a_terminal_it_says_what_there_is(cli: Cli) -> None:
    ended = cli.run()
    assert ended.code == 2 and "Commands:" in ended.out and "chat" in ended.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--continue"], "there is no session of"),
        (["--resume", "20200101"], "there is no session 20200101"),
        (["--resume"], "there is no earlier session"),
        (["--workspace", "missing"], "cannot be used"),
        (["--mode", "yolo"], "yolo"),
        (["--max-cost", "0"], "must be more than 0"),
        (["--model", "nobody:x"], 'unknown provider "nobody"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(
    cli: Cli, workspace: Path, arguments: list[str], told: str
) -> None:
    ended = cli.run("chat", *arguments, cwd=workspace)
    assert ended.code == 2
    assert told in ended.error
