"""Forks, which start a session from another one's past, and replays, which repeat it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from agentcli.agent.events import SessionStarted
from agentcli.cli.main import main
from agentcli.errors import ConflictError, UsageError
from agentcli.session import timetravel
from agentcli.session.forking import fork
from agentcli.session.journal import read_events
from agentcli.session.store import journal_path, list_sessions
from tests.server import Reply, ScriptedServer
from tests.session.conftest import Sessions, files, shell, write

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process; returns its exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


SCRIPT = [write("a.txt", "1\n"), shell("echo 2 >> a.txt; echo b > b.txt"), Reply(text="Done.")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_a_fork_in_the_same_workspace(sessions: Sessions) -> None:
    result = await sessions.run(SCRIPT)
    first = result.state.session_id
    second = await fork(first, 1)
    assert files(sessions.workspace) == {"a.txt": "644 b'1\\n'"}
    state = sessions.state(second)
    assert (state.session_id, state.step) == (second, 1)
    assert state.usage == result.state.records[0].usage
    assert list(state.history) == list(result.state.history)[: len(state.history)]
    # The first session is unchanged, but no longer owns the files, which the fork has changed.
    assert sessions.state(first).history == result.state.history
    with pytest.raises(ConflictError, match=r"1 file .*a\.txt"):
        await timetravel.undo(first)

    again = await sessions.run([Reply(text="Otherwise.")], task="", session_id=second)
    assert again.state.answer == "Otherwise."
    await timetravel.rewind(second, 0)
    assert files(sessions.workspace) == {}
    assert {info.id for info in list_sessions()} == {first, second}


async def test_a_fork_into_a_copy(sessions: Sessions, tmp_path: Path) -> None:
    (sessions.workspace / "old.txt").write_text("old\n")
    result = await sessions.run(SCRIPT)
    (sessions.workspace / "old.txt").write_text("changed by the user afterwards\n")
    before = files(sessions.workspace)
    copy = tmp_path / "copy"
    second = await fork(result.state.session_id, 1, workspace=copy)
    assert files(copy) == {"a.txt": "644 b'1\\n'", "old.txt": "644 b'old\\n'"}
    assert files(sessions.workspace) == before
    assert sessions.state(second).workspace == str(copy)
    await timetravel.rewind(second, 0)  # restores files from the first session's snapshots
    assert files(copy) == {"old.txt": "644 b'old\\n'"}
    await timetravel.redo(second)
    assert (copy / "a.txt").read_text() == "1\n"
    with pytest.raises(UsageError, match="cannot make"):
        await fork(result.state.session_id, 1, workspace=copy)


def test_a_replay_gives_the_same_and_says_what_differs(
    sessions: Sessions, run: Run, tmp_path: Path
) -> None:
    (sessions.workspace / "n.txt").write_text("one\n")
    script = [
        shell("cat n.txt; ls"),
        write("a.txt", "1\n"),
        Reply(text="Done."),
        Reply(text="It is taken back."),
        shell("cat a.txt"),
        Reply(text="And more."),
    ]

    async def twice() -> str:
        async with sessions.agent(script) as agent:
            await agent.start("one").result()
            await agent.start("not this").result()
            await timetravel.undo(agent)
            await agent.start("two", checks=("test -f a.txt",)).result()
            return agent.state.session_id

    session = asyncio.run(twice())
    (sessions.workspace / "n.txt").write_text("changed since\n")
    before = files(sessions.workspace)
    code, out, err = run("sessions", "replay", session, "--workspace", str(tmp_path / "copy"))
    assert (code, "And more." in out) == (0, True), err
    assert "solved · 5 steps ·" in err and "taken back" not in out
    assert files(tmp_path / "copy") == {"a.txt": "644 b'1\\n'", "n.txt": "644 b'one\\n'"}
    assert files(sessions.workspace) == before
    replayed = sessions.state(list_sessions()[0].id)
    assert replayed.session_id != session
    recorded = sessions.state(session)
    assert [m.text for m in replayed.history] == [m.text for m in recorded.history]
    assert [record.step for record in replayed.records] == [1, 2, 3, 4, 5]

    # Replay from a step in the middle of a task.
    code, out, err = run("sessions", "replay", session, "--from", "1")
    assert code == 0, err
    replayed = sessions.state(list_sessions()[0].id)
    assert [record.step for record in replayed.records] == [1, 2, 3, 4, 5]
    assert replayed.records[0] == recorded.records[0]
    # A tool with a different result is named.
    path = journal_path(session)
    path.write_bytes(path.read_bytes().replace(b"exit code 0\\none\\n", b"exit code 0\\ntwo\\n"))
    code, out, err = run("sessions", "replay", session)
    assert code == 1 and "shell (call_" in err and "gave another result" in err
    # A killed session cannot be replayed beyond its last event.
    lines = path.read_bytes().splitlines(keepends=True)
    begun = next(n for n, line in enumerate(lines) if b'"kind":"tool_started"' in line)
    path.write_bytes(b"".join(lines[: begun + 1]))
    code, out, err = run("sessions", "replay", session)
    assert code == 3 and "error: session" in err and "It was cut short there" in err


def test_another_model_goes_on_from_a_step(
    sessions: Sessions, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = asyncio.run(sessions.run(SCRIPT)).state.session_id
    with ScriptedServer([write("c.txt", "3\n"), Reply(text="My own way.")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
        code, out, err = run(
            *("sessions", "replay", session, "--from", "1", "--model", "openai:other"),
            *("--workspace", str(tmp_path / "copy")),
        )
    assert (code, out) == (0, "My own way.\n"), err
    assert sorted(files(tmp_path / "copy")) == ["a.txt", "c.txt"]
    events = list(read_events(journal_path(list_sessions()[0].id)))
    assert [e.model for e in events if isinstance(e, SessionStarted)] == [
        *("openai:scripted", "openai:other")
    ]


def test_undo_redo_rewind_and_fork_on_the_command_line(sessions: Sessions, run: Run) -> None:
    session = asyncio.run(sessions.run(SCRIPT)).state.session_id
    code, out, err = run("sessions", "undo", session)
    assert code == 2 and "--yes" in err and "-1" in out and "deleted" not in err
    assert sorted(files(sessions.workspace)) == ["a.txt", "b.txt"]
    code, out, err = run("sessions", "undo", session, "2", "--yes")
    assert code == 0 and "stands at the end of step 1; 2 files changed" in out
    assert sorted(files(sessions.workspace)) == ["a.txt"]
    assert run("sessions", "redo", session[:-1], "--yes")[0] == 0
    (sessions.workspace / "b.txt").write_text("mine\n")
    code, out, err = run("sessions", "rewind", session, "0", "--yes")
    assert code == 1 and "conflict: b.txt: it was changed since" in out and "b.txt" in err
    code, out, err = run("sessions", "rewind", session, "0", "--yes", "--force")
    assert code == 0
    place = out.rsplit("what was overwritten is in ", 1)[1].strip()
    assert (Path(place) / "b.txt").read_text() == "mine\n"
    code, out, err = run("sessions", "fork", session, "0", "--yes")
    assert code == 0 and sessions.state(out.strip()).task == ""
    code, out, err = run("sessions", "rewind", session, "7", "--yes")
    assert code == 2 and "no step 7" in err


def test_an_export_cannot_control_a_terminal(sessions: Sessions) -> None:
    evil = "\x1b]0;mine\x07 \x9b31m"
    first = asyncio.run(sessions.run([Reply(text=evil)])).state.session_id
    for form in ("markdown", "json", "journal"):
        for out, escaped in ((Terminal(), True), (io.StringIO(), form == "json")):
            with redirect_stdout(out):
                assert main(["sessions", "export", first, "--format", form]) == 0
            assert ("\x9b" not in out.getvalue()) == escaped


def test_list_search_export_and_delete(sessions: Sessions, run: Run, tmp_path: Path) -> None:
    first = asyncio.run(sessions.run(SCRIPT, task="write the “first” file")).state.session_id
    second = asyncio.run(sessions.run([Reply(text="A Needle in it.")])).state.session_id
    code, out, _ = run("sessions", "list", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert [(e["id"], e["status"], e["stop_reason"], e["condition"]) for e in listed] == [
        (second, "solved", "final", "finished"),
        (first, "solved", "final", "finished"),
    ]
    _, out, _ = run("sessions", "search", "needle")
    assert out.split()[:3] == [second, "1", "assistant"] and "A Needle" in out
    _, out, _ = run("sessions", "search", "“FIRST”")
    assert out.startswith(first)
    code, out, err = run("sessions", "search", "nowhere to be found")
    assert (code, out, err) == (0, "", "nothing was found\n")

    _, out, _ = run("sessions", "export", first)
    assert out.startswith(f"# Session {first}\n") and "## Assistant" in out and "`shell`" in out
    _, out, _ = run("sessions", "export", first, "--format", "journal")
    assert out == journal_path(first).read_text()
    target = tmp_path / "out.json"
    assert run("sessions", "export", first, "--format", "json", "--to", str(target))[0] == 0
    assert json.loads(target.read_text())["task"] == "write the “first” file"
    assert run("sessions", "export", first, "--to", str(target))[0] == 2  # never overwritten

    kept = sessions.data / "snapshots"
    code, out, _ = run("sessions", "delete", first, first)
    assert (code, out) == (2, f"{first}\n") and journal_path(first).exists()
    assert run("sessions", "delete", first, "--yes")[0] == 0
    assert not journal_path(first).parent.exists() and len(list(kept.iterdir())) == 1
    assert run("sessions", "delete", second, "--yes")[0] == 0
    assert list(kept.iterdir()) == []  # no snapshot remains
    assert sorted(files(sessions.workspace)) == ["a.txt", "b.txt"]


def test_a_fork_of_a_step_that_was_brought_back(sessions: Sessions, run: Run) -> None:
    session = asyncio.run(sessions.run(SCRIPT)).state.session_id
    for moving in (
        ("rewind", session, "0"),
        ("redo", session),
        ("undo", session),
        ("redo", session),
    ):
        assert run("sessions", *moving, "--yes")[0] == 0
    for step, names in ((1, ["a.txt"]), (2, ["a.txt", "b.txt"])):
        code, out, err = run("sessions", "fork", session, str(step), "--yes")
        assert code == 0, err
        state = sessions.state(out.strip())
        assert (state.step, len(state.records)) == (step, step)
        assert sorted(files(sessions.workspace)) == names
        assert run("sessions", "rewind", out.strip(), "0", "--yes")[0] == 0
        assert files(sessions.workspace) == {}
        assert run("sessions", "redo", out.strip(), "--yes")[0] == 0
        if step == 1:  # restore what the first session left
            (sessions.workspace / "a.txt").write_text("1\n2\n")
            (sessions.workspace / "b.txt").write_text("b\n")


def test_what_can_be_done_after_an_undo(sessions: Sessions, run: Run) -> None:
    async def twice() -> str:
        async with sessions.agent([Reply(text="One."), Reply(text="Two.")]) as agent:
            await agent.start("one").result()
            await agent.start("two").result()
            return agent.state.session_id

    session = asyncio.run(twice())
    assert run("sessions", "undo", session, "--yes")[0] == 0
    assert [(i.condition, i.ended) for i in list_sessions()] == [("finished", "rewound")]
    assert "rewound" in run("trace", "show", session)[1]
    code, _, err = run("run", "--session", session)
    assert code == 2 and "has ended" in err  # already answered: needs a new task
    code, _, err = run("run", "--session", "", "-p", "an unset variable names no session")
    assert code == 2 and "is not a session id" in err


def test_deleting_a_session_lets_go_of_what_no_other_needs(sessions: Sessions, run: Run) -> None:
    large = "0123456789abcdef" * 20_000
    first = asyncio.run(sessions.run([write("big.txt", large), Reply(text="1")])).state.session_id
    (sessions.workspace / "big.txt").unlink()
    second = asyncio.run(sessions.run(SCRIPT)).state.session_id

    def kept() -> int:
        return sum(path.stat().st_size for path in sessions.data.rglob("*.pack"))

    assert kept() > len(large)
    assert run("sessions", "delete", first, "--yes")[0] == 0
    assert 0 < kept() < len(large)
    assert run("sessions", "undo", second, "--yes")[0] == 0
    assert files(sessions.workspace) == {}
    code, _, err = run("sessions", "replay", second)
    assert code == 2 and "nothing follows" in err
    assert run("sessions", "redo", second, "--yes")[0] == 0
    assert run("sessions", "replay", second)[0] == 0
