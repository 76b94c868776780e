"""The smaller commands (sessions, tools, doctor) and behaviour common to all commands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from agentcli.cli.app import call
from agentcli.cli.doctor import _wrapped
from agentcli.cli.table import table
from agentcli.errors import UsageError
from tests.conftest import Serve
from tests.running import BIN, KEY, Cli
from tests.server import Reply, ScriptedServer


@pytest.fixture
def session(cli: Cli, serve: Serve, workspace: Path) -> str:
    """The id of a finished session."""
    edit = ("write_file", {"path": "a.txt", "content": "\x1b[2Jhello\n"})
    cli.server = serve([Reply(text="I write.", calls=[edit]), Reply(text="Written.")]).url
    arguments = ["-p", "Write\na file.", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run("run", *arguments, "--output", "json")
    assert ended.code == 0, ended.err
    return str(ended.json["session_id"])


def test_sessions_are_listed(cli: Cli, session: str, workspace: Path) -> None:
    ended = cli.call("sessions", "list")
    (line,) = ended.out.splitlines()
    for part in (session, "solved", "openai:m", str(workspace), "Write a file."):
        assert part in line
    assert session in cli.call("sessions", "list", "--workspace", str(workspace)).out
    assert session not in cli.call("sessions", "list", "--workspace", str(cli.home)).out


def test_a_session_is_shown(cli: Cli, session: str) -> None:
    ended = cli.call("sessions", "show", session[:-2])
    assert ended.code == 0
    for part in (
        "task: Write\na file.\n",
        "I write.\n",
        "> write_file a.txt\n  created a.txt (1 line)",
        r"  +\x1b[2Jhello",
        "\nWritten.\n",
        "solved · 2 steps",
    ):
        assert part in ended.out
    assert "\x1b" not in ended.out


def test_a_session_without_its_end_is_shown(cli: Cli, session: str) -> None:
    (path,) = cli.journals()
    lines = path.read_bytes().splitlines(keepends=True)
    started = next(n for n, line in enumerate(lines) if b'"tool_started"' in line)
    path.write_bytes(b"".join(lines[: started + 1]))
    ended = cli.call("sessions", "show", session)
    assert "> write_file a.txt\n  began, and has no result\ninterrupted · 1 step · " in ended.out
    assert f"go on with: agentcli run --session {session}\n" in ended.out
    assert "None" not in ended.out


def test_a_session_goes_on_by_the_beginning_of_its_id(
    cli: Cli, serve: Serve, session: str, workspace: Path
) -> None:
    cli.server = serve([Reply(text="More.")]).url
    arguments = ["-p", "More.", "--session", session[:-2], "--output", "json"]
    ended = cli.run("run", *arguments)
    assert ended.code == 0, ended.err
    assert (ended.json["session_id"], ended.json["steps"]) == (session, 1)
    shown = cli.run("sessions", "show", session).out
    assert shown.index("Written.\nsolved · 2 steps") < shown.index("task: More.\n")
    assert "More.\nsolved · 1 step · " in shown


def test_the_last_session_of_a_folder_goes_on(
    cli: Cli, serve: Serve, session: str, workspace: Path, tmp_path: Path
) -> None:
    cli.server = serve([Reply(text="More.")]).url
    here = ["--continue", "--workspace", str(workspace)]
    ended = cli.run("run", "-p", "More.", *here, "--output", "json")
    assert ended.code == 0, ended.err
    assert (ended.json["session_id"], ended.json["steps"]) == (session, 1)
    both = cli.run("run", "-p", "More.", *here, "--session", session)
    assert both.code == 2 and "both given" in both.err
    (tmp_path / "elsewhere").mkdir()
    none = cli.run("run", "-p", "More.", "-c", "--workspace", str(tmp_path / "elsewhere"))
    assert none.code == 2 and "there is no session of" in none.err


def test_wide_characters_keep_the_columns_aligned() -> None:
    rows = [["/home/日本", "solved"], ["/home/abcd", "failed"], ["/h", "failed"]]
    assert table(("WORKSPACE", "ENDED"), rows, True) == [
        "WORKSPACE   ENDED",
        "/home/日本  solved",
        "/home/abcd  failed",
        "/h          failed",
    ]


def test_no_session_yet(cli: Cli) -> None:
    ended = cli.call("sessions", "list")
    assert (ended.code, ended.out) == (0, "")


def test_a_session_that_does_not_exist(cli: Cli) -> None:
    ended = cli.call("sessions", "show", "20200101-000000-abc")
    assert ended.code == 2
    assert "20200101-000000-abc" in ended.error


def test_tools(cli: Cli) -> None:
    ended = cli.run("tools")
    assert ended.code == 0
    names = [line.split()[0] for line in ended.out.splitlines()]
    assert {"read_file", "search_replace", "run_tests", "shell"} <= set(names)
    assert {"todo", "delegate", "jobs"} <= set(names)  # tools outside the workspace too
    one = cli.run("tools", "grep")
    assert '"pattern"' in one.out and one.out.startswith("grep@1 (search)")
    assert cli.run("tools", "hammer").code == 2


def test_doctor(cli: Cli) -> None:
    ended = cli.run("doctor")
    assert ended.code == 0, ended.out
    assert "sandbox" in ended.out and "level" in ended.out
    assert "sk-test" not in ended.out


def test_doctor_says_which_model_is_used(cli: Cli) -> None:
    for name, told in (
        ("embedded", r"ok +model +embedded"),
        ("local:/nowhere", r"missing +model +local:/nowhere: /nowhere: no such model"),
        ("nowhere:x", r'missing +model +nowhere:x: unknown provider "nowhere"'),
        ("mistral:x", r"missing +model +mistral:x: .*MISTRAL_API_KEY"),
    ):
        cli.extra = {"AGENTCLI_MODEL": name}
        assert re.search(told, cli.run("doctor").out), name


@pytest.mark.parametrize("words", [("--task", "fix it"), ("fix", "it")])
def test_run_with_plain_words_names_the_option_for_them(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match='A task in words: agentcli run -p "TEXT"'):
        call(["run", *words])


def test_doctor_asks_the_servers_of_the_settings(cli: Cli) -> None:
    def mine(url: str) -> str:
        cli.extra = {
            "AGENTCLI_PROVIDERS__MINE__BASE_URL": url,
            "AGENTCLI_PROVIDERS__MINE__API_KEY_ENV": "OPENAI_API_KEY",
        }
        (line,) = [line for line in cli.run("doctor").out.splitlines() if "server of mine" in line]
        return re.sub(" +", " ", line)

    with ScriptedServer([], models=["a", "b"]) as server:
        assert mine(server.url) == f"ok server of mine {server.url} answers: 2 models"
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert mine("http://127.0.0.1:9/v1").startswith("missing server of mine cannot reach mine at")
    cli.extra = {**cli.extra, "OPENAI_API_KEY": ""}
    assert "OPENAI_API_KEY is not set" in cli.run("doctor").out


def test_models_list_heeds_a_trusted_project(cli: Cli, workspace: Path) -> None:
    (workspace / ".agentcli").mkdir()
    server = "[providers.mine]\nbase_url = 'http://127.0.0.1:9/v1'\n"
    (workspace / ".agentcli/config.toml").write_text(server)
    assert "mine:NAME" not in cli.run("models", "list", cwd=workspace).out
    cli.run("trust", str(workspace))
    assert "mine:NAME" in cli.run("models", "list", cwd=workspace).out


def test_doctor_heeds_a_trusted_project(cli: Cli, workspace: Path) -> None:
    (workspace / ".agentcli").mkdir()
    settings = 'model = "openai:theirs"\nnetwork = "loopback"\n'
    (workspace / ".agentcli" / "config.toml").write_text(settings)
    assert "openai:theirs" not in cli.run("doctor", cwd=workspace).out
    cli.run("trust", str(workspace))
    told = cli.run("doctor", cwd=workspace).out
    assert re.search(r"ok +network of commands +loopback\n", told), told
    assert re.search(r"ok +model +openai:theirs\n", told), told


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-steps", "x", "must be a whole number"),
        ("--max-steps", "0", "must be at least 1"),
        ("--timeout", "x", "must be a number"),
        ("--timeout", "inf", "must be a number; leave it out for no end"),
        ("--timeout", "nan", "must be a number; leave it out for no end"),
        ("--max-cost", "-1", "must be more than 0"),
    ],
)
def test_invalid_numbers(option: str, value: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        call(["run", "-p", "x", option, value])
    assert caught.value.message == (
        f"Invalid value for '{option}': {told}. See: agentcli run --help"
    )


@pytest.mark.parametrize("words", ["--profile fast config show", "--model x:y run -p hi"])
def test_options_before_the_command_begin_no_chat(words: str) -> None:
    with pytest.raises(UsageError, match=r"options stand after the command: agentcli (config|run)"):
        call(words.split())


@pytest.mark.parametrize("option", ["-p", "--prompt"])
def test_a_task_without_a_command_is_a_run(option: str) -> None:
    with pytest.raises(UsageError, match=r"'--max-steps'.* See: agentcli run --help"):
        call([option, "hi", "--max-steps", "x"])


def test_doctor_keeps_to_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    line = f"{'ok':<9}{'control groups':<32}version 1, below /sys/fs/cgroup/a/b, each with limits"
    lines = _wrapped(line).splitlines()
    assert all(len(each) <= 60 for each in lines) and " ".join(" ".join(lines).split()) == (
        " ".join(line.split())
    )
    monkeypatch.setenv("COLUMNS", "200")
    assert _wrapped(line) == line


def test_doctor_says_what_is_missing(cli: Cli) -> None:
    (cli.home / "data").write_text("in the way")
    ended = cli.call("doctor")
    assert ended.code == 1
    assert "MISSING  sessions" in ended.out


def test_a_reader_that_leaves(cli: Cli) -> None:
    process = cli.start("tools", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=30) in (0, 141)
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        (">&-", 5, "agentcli: error: cannot write the output: stdout is closed\n"),
        (">/dev/full", 5, "agentcli: error: cannot write the output: No space left on device\n"),
        (">&- 2>&-", 5, ""),
        (">/dev/full 2>&1", 5, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", ["tools", "--version", "run -p Hi --model openai:m"])
def test_streams_that_cannot_be_written(
    cli: Cli,
    serve: Serve,
    workspace: Path,
    redirection: str,
    code: int,
    err: str,
    command: str,
    buffered: bool,
) -> None:
    if not buffered:  # as in containers
        cli.extra = {**cli.extra, "PYTHONUNBUFFERED": "1"}
    cli.server = serve([Reply(text="Hello.")]).url
    ended = cli.shell(f"{BIN}/agentcli {command} {redirection}", workspace)
    assert ended.code == code
    assert ended.err.endswith(err) if "run" in command else ended.err == err, ended.err
    assert "Traceback" not in ended.err and "agentcli: error" not in ended.out
    assert code or ended.out
    assert not list(cli.home.rglob("crash-*"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal(
    cli: Cli, serve: Serve, workspace: Path, encoding: str
) -> None:
    cli.server = serve([Reply(text="Grüße, 世界 \U0001f680")]).url
    cli.extra = {"PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        [str(BIN / "agentcli"), "run", "-p", "Hi", "--model", "openai:m"],
        cwd=workspace,
        env=cli.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode(encoding).startswith("Gr")


def test_it_runs_as_a_module(cli: Cli) -> None:
    ended = subprocess.run(
        [str(BIN / "python"), "-m", "agentcli", "--version"],
        env={**cli.env, "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout.startswith("agentcli ")


def test_a_misspelt_command_is_guessed(cli: Cli) -> None:
    for arguments, line in (
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? See: agentcli --help"),
        (
            ["sessions", "lst"],
            "No such command 'lst'. Did you mean 'list'? See: agentcli sessions --help",
        ),
        (["xyzzy"], "No such command 'xyzzy'. See: agentcli --help"),
    ):
        ended = cli.call(*arguments)
        assert (ended.code, ended.err) == (2, f"agentcli: error: {line}\n")


@pytest.mark.parametrize("group", ["sessions", "trace", "config", "models", "sandbox"])
def test_help_says_the_whole_of_what_a_command_does(cli: Cli, group: str) -> None:
    ended = cli.call(group, "--help")
    listed = ended.out.partition("Commands:\n")[2].splitlines()
    assert ended.code == 0
    assert listed
    assert "..." not in "".join(listed)
    assert max(map(len, listed)) <= 80
    assert listed[-1].endswith(".")
