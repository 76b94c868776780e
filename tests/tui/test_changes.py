"""The commands /diff, /commit, /jobs and /theme."""

from __future__ import annotations

import subprocess
import threading
import tomllib
from pathlib import Path

import pytest

from agentcli.cli.chat import _remember
from agentcli.tui.entries import Shown, Told
from tests.server import Reply
from tests.tui.chatting import Chat
from tests.tui.conftest import Start


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=Me", "-c", "user.email=me@example.org", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


async def shown(one: Chat, command: str) -> Shown:
    """Enter a command and wait for its output."""
    before = len(one.entries(Shown))
    await one.send(command)
    await one.until(lambda: len(one.entries(Shown)) > before, command)
    found: Shown = one.entries(Shown)[-1]
    return found


async def test_files_without_changed_lines_count_as_well(chat: Start, workspace: Path) -> None:
    made = "mkdir new; touch new/empty; printf '\\0' > new/binary; printf '++ x\\n++ y\\n' > lines"
    script = [Reply(calls=[("shell", {"command": made})]), Reply(text="done")]
    async with chat(script, mode="auto") as one:
        await one.send("go")
        await one.idle()
        own = await shown(one, "/diff")
        assert own.text == "**3 files** changed since the session began", own.diff


async def test_the_users_git_settings_change_no_diff(
    chat: Start, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured = "[color]\nui = always\n[diff]\nmnemonicPrefix = true\nrenames = copies\n"
    (tmp_path / ".gitconfig").write_text(configured)
    monkeypatch.setenv("HOME", str(tmp_path))
    (workspace / "café.txt").write_text("one\n")
    git(workspace, "init", "-q")
    git(workspace, "add", "-A")
    git(workspace, "commit", "-qm", "first")
    (workspace / "café.txt").write_text("two\n")
    async with chat([]) as one:
        await one.idle()
        every = await shown(one, "/diff all")
        head = "diff --git a/café.txt b/café.txt\n"
        assert every.diff.startswith(head) and "\n-one\n+two\n" in every.diff
        await one.sees("café.txt", "1 - one", "1 + two")


async def test_what_was_changed_is_seen_and_committed_after_a_look(
    chat: Start, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "a.py").write_text("x = 1\n\n\n\ny = 1\n")
    (workspace / "mine.txt").write_text("mine\n")
    git(workspace, "init", "-q")
    git(workspace, "add", "a.py")
    git(workspace, "commit", "-qm", "first")
    (workspace / "a.py").write_text("x = 1\n\n\n\ny = 'mine'\n")
    git(workspace, "add", "mine.txt")  # staged by the user, not by the session
    for kind in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{kind}_NAME", "Me")
        monkeypatch.setenv(f"GIT_{kind}_EMAIL", "me@example.org")
    edits = [
        ("search_replace", {"path": "a.py", "old": "x = 1", "new": "x = 2"}),
        ("shell", {"command": "echo made > b.txt"}),
    ]
    script = [Reply(calls=edits), Reply(text="done"), Reply(text="Make x two\n\nIt was one.")]
    async with chat(script, mode="auto") as one:
        await one.idle()
        await one.send("/commit")
        await one.sees("has no changes that git does not already")
        await one.send("/diff")
        await one.sees("no file differs since the session began")
        await one.send("go")
        await one.idle()
        own = await shown(one, "/diff")
        assert "-x = 1\n+x = 2\n" in own.diff and "+made" in own.diff
        assert "+mine" not in own.diff and "+y" not in own.diff
        (workspace / "empty").touch()
        every = await shown(one, "/diff all")
        assert "+mine" in every.diff and "+x = 2" in every.diff
        assert every.text == "**4 files** changed since the last commit"
        (workspace / "empty").unlink()
        await one.send("/commit")
        await one.until(lambda: one.app.prompt.text.startswith("/commit Make x two"), "a draft")
        assert git(workspace, "log", "--format=%s") == "first\n"  # only drafted
        await one.sees("of a.py only what this session changed")
        one.app.prompt.insert(" Now it is not.")
        await one.press("enter")
        await one.until(lambda: any("commit " in told.text for told in one.entries(Told)), "it")
        await one.until(lambda: git(workspace, "log", "--format=%s").count("\n") == 2, "a commit")
    message = git(workspace, "log", "-1", "--format=%B").strip()
    assert message == "Make x two\n\nIt was one. Now it is not."
    assert git(workspace, "show", "--name-only", "--format=").split() == ["a.py", "b.txt"]
    assert git(workspace, "show", "HEAD:a.py") == "x = 2\n\n\n\ny = 1\n"
    assert (workspace / "a.py").read_text() == "x = 2\n\n\n\ny = 'mine'\n"
    assert git(workspace, "status", "--porcelain") == " M a.py\nA  mine.txt\n"


async def test_a_turn_that_begins_while_a_message_is_drafted_is_seen_to_go_on(
    chat: Start, workspace: Path
) -> None:
    git(workspace, "init", "-q")
    git(workspace, "commit", "-q", "--allow-empty", "-m", "first")
    edit = ("write_file", {"path": "a.txt", "content": "made\n"})
    drafted, answered = threading.Event(), threading.Event()
    script = [
        Reply(calls=[edit]),
        Reply(text="done"),
        Reply(text="Make it", until=drafted),
        Reply(text="fine", until=answered),
    ]
    async with chat(script, mode="edits") as one:
        await one.send("go")
        await one.idle()
        await one.send("/commit")
        await one.sees("Drafting a message")
        await one.send("is all well?")
        await one.sees("Waiting for the model")
        drafted.set()
        await one.until(lambda: one.app.prompt.text == "/commit Make it", "a draft")
        await one.pilot.pause()
        assert "Waiting for the model" in one.text
        answered.set()
        await one.idle()


async def test_commands_in_the_background_are_listed_read_and_stopped(
    chat: Start, workspace: Path
) -> None:
    call = ("shell", {"command": "echo hello; sleep 600", "background": True})
    async with chat([Reply(calls=[call]), Reply(text="it runs")], mode="auto") as one:
        await one.idle()
        await one.send("/jobs")
        await one.sees("no command runs in the background")
        await one.send("go")
        await one.idle()
        assert one.agent.context.jobs is not None
        (job,) = one.agent.context.jobs
        await one.until(lambda: "hello" in job.tail, "its output")
        assert "sleep 600" in (await shown(one, "/jobs")).text
        assert "hello" in (await shown(one, "/jobs 1")).text
        await one.send("/jobs stop 1")
        await one.until(lambda: not job.running, "its end")
        await one.sees("1: killed")
        await one.send("/jobs 7")
        await one.sees("no background command")


async def test_a_theme_that_was_chosen_holds_the_next_time(chat: Start, home: Path) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text("# mine\nmodel = 'openai:x'\n")
    async with chat(remember=_remember) as one:
        await one.idle()
        await one.send("/theme light")
        await one.until(lambda: "light" in file.read_text(), "it saved")
        assert one.app.theme == "light"
    assert file.read_text().startswith("# mine\n")
    assert tomllib.loads(file.read_text())["chat"] == {"theme": "light"}
