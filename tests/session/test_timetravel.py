"""Undo, redo and rewind restore messages and files together, and lose no user changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentcli.agent.events import Rewound, WorkspaceChanged
from agentcli.agent.folding import fold_all
from agentcli.agent.state import AgentState
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import capture
from agentcli.errors import ConflictError, JournalError, SnapshotError, UsageError
from agentcli.messages import Role, validate_history
from agentcli.session import store, timetravel
from agentcli.session.journal import Journal, read_events
from agentcli.session.moves import Move, carry_out
from agentcli.session.store import journal_path, load_state
from tests.server import Reply
from tests.session.conftest import Sessions, files, read, shell, write

START = {
    "plain.txt": b"one\n",
    "crlf.txt": b"a\r\nb\r\n",
    "latin.txt": b"caf\xe9\n",
    "gone/away.txt": b"bye\n",
    "keep/old.txt": b"old\n",
    "run.sh": b"#!/bin/sh\n",
}
# All kinds of changes that a command can make to files, one per line.
CHAOS = """
echo two >> plain.txt
printf 'a\\nb\\n' > crlf.txt
chmod 755 run.sh
rm -r gone
mv keep/old.txt keep/new.txt
ln -s /etc/hostname link
mkdir -p empty/inner
printf 'x' > "$(printf 'od\\377d \\n name')"
rm latin.txt && mkdir latin.txt && echo in > latin.txt/in
"""


def fill(workspace: Path) -> dict[str, str]:
    for name, data in START.items():
        path = workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (workspace / "gone" / "hollow").mkdir()
    return files(workspace)


async def test_without_the_workspace_nothing_is_undone(sessions: Sessions) -> None:
    session = (await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])).state.session_id
    before = sessions.state(session)
    sessions.workspace.rename(away := sessions.workspace.with_name("away"))
    with pytest.raises(UsageError, match="does not exist"):
        await timetravel.undo(session)
    assert sessions.state(session) == before
    away.rename(sessions.workspace)
    await timetravel.undo(session)
    assert files(sessions.workspace) == {}


async def test_undo_and_redo_of_whatever_a_command_did(sessions: Sessions) -> None:
    before = fill(sessions.workspace)
    result = await sessions.run([shell(CHAOS), Reply(text="Done.")])
    session, after = result.state.session_id, files(sessions.workspace)
    assert before != after
    assert {"plain.txt", "run.sh", "gone/away.txt", "keep/new.txt", "link"} <= set(
        result.state.files_changed
    )
    seen = await timetravel.preview(session)
    assert "-two" in seen.diff and "+bye" in seen.diff and "new mode 644" in seen.diff
    assert seen.conflicts == () and len(seen.dropped) == 4

    await timetravel.undo(session)
    assert files(sessions.workspace) == before
    state = sessions.state(session)
    assert [message.role for message in state.history] == [Role.SYSTEM]
    assert state.task == "" and state.usage == result.state.usage
    with pytest.raises(UsageError, match="nothing to undo"):
        await timetravel.undo(session)

    await timetravel.redo(session)
    assert files(sessions.workspace) == after
    assert list(sessions.state(session).history) == list(result.state.history)
    with pytest.raises(UsageError, match="nothing to redo"):
        await timetravel.redo(session)


async def test_rewind_to_a_step_and_go_on_from_there(sessions: Sessions) -> None:
    result = await sessions.run(
        [write("a.txt", "1\n"), write("b.txt", "2\n"), shell("echo 3 > c.txt"), Reply(text="Done.")]
    )
    session = result.state.session_id
    points = timetravel.points(session)
    assert [(point.step, point.turn) for point in points] == [
        *((0, True), (1, False), (2, False), (3, False), (4, False))
    ]
    assert points[0].text == "do it" and points[3].files == ("c.txt",)
    done = await timetravel.rewind(session, 1)
    assert (done.step, done.paths) == (1, ("b.txt", "c.txt"))
    assert sorted(files(sessions.workspace)) == ["a.txt"]

    again = await sessions.run([Reply(text="Better.")], task="", session_id=session)
    assert again.state.answer == "Better."
    events = list(read_events(journal_path(session)))
    state = fold_all(events)
    validate_history(tuple(state.history))
    assert [message.text for message in state.history if message.role is Role.ASSISTANT] == [
        *("", "Better.")
    ]
    assert state.step == 5  # step numbers are never reused
    # The journal is append-only, so everything is still in it.
    assert sum(isinstance(event, Rewound) for event in events) == 1
    with pytest.raises(UsageError, match="no step 9"):
        await timetravel.rewind(session, 9)


async def test_what_the_user_changed_meanwhile_is_refused_by_name(sessions: Sessions) -> None:
    result = await sessions.run(
        [write("mine.txt", "tool\n"), write("other.txt", "tool\n"), Reply(text="Done.")]
    )
    session = result.state.session_id
    (sessions.workspace / "mine.txt").write_text("the user's\n")
    before = files(sessions.workspace)
    with pytest.raises(ConflictError, match=r"mine\.txt") as refused:
        await timetravel.undo(session)
    assert refused.value.paths == ("mine.txt",)
    assert files(sessions.workspace) == before
    assert sessions.state(session).history == result.state.history

    done = await timetravel.undo(session, force=True)
    assert files(sessions.workspace) == {}
    assert done.quarantine is not None
    assert (done.quarantine / "mine.txt").read_text() == "the user's\n"
    await timetravel.redo(session)  # the replaced file comes back
    assert (sessions.workspace / "mine.txt").read_text() == "the user's\n"


async def test_what_the_user_changed_between_two_commands_is_refused(sessions: Sessions) -> None:
    shared = sessions.workspace / "shared.txt"
    shared.write_text("start\n")
    async with sessions.agent(
        [
            shell("echo first > shared.txt"),
            Reply(text="One."),
            shell("echo third > shared.txt"),
            Reply(text="Two."),
        ]
    ) as agent:
        await agent.start("one").result()
        shared.write_text("the user's second\n")
        result = await agent.start("two").result()
        changes = list(agent.state.changes)
        assert [change.outside for change in changes] == [False, True, False]
        # Undoing only the second task restores what the user wrote.
        await timetravel.undo(agent)
        assert shared.read_text() == "the user's second\n"
        await timetravel.redo(agent)
        assert shared.read_text() == "third\n"
        with pytest.raises(ConflictError, match="in between"):
            await timetravel.rewind(agent, 0)
    assert result.exit_code == 0


async def test_within_a_running_session(sessions: Sessions) -> None:
    async with sessions.agent(
        [
            write("a.txt", "1\n"),
            Reply(text="One."),
            shell("rm a.txt; echo > b.txt"),
            Reply(text="Two."),
            Reply(text="Three."),
        ]
    ) as agent:
        await agent.start("one").result()
        first = list(agent.state.history)
        await agent.start("two").result()
        await timetravel.undo(agent)
        assert list(agent.state.history) == first
        assert files(sessions.workspace) == {"a.txt": "644 b'1\\n'"}
        result = await agent.start("three").result()
        assert result.state.answer == "Three."
        assert [m.text for m in agent.state.history if m.role is Role.USER] == ["one", "three"]
        # Restoring files is recorded neither as a command's change nor as an outside one.
        assert sum(isinstance(change, WorkspaceChanged) for change in agent.state.changes) == 1
    assert fold_all(read_events(journal_path(agent.state.session_id))) == agent.state


async def test_messages_alone_and_files_alone(sessions: Sessions) -> None:
    result = await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])
    session = result.state.session_id
    await timetravel.rewind(session, 0, files=False)
    assert files(sessions.workspace) and len(sessions.state(session).history) == 1
    await timetravel.redo(session)
    await timetravel.rewind(session, 0, messages=False)
    assert not files(sessions.workspace)
    assert sessions.state(session).history == result.state.history
    await timetravel.redo(session)
    assert files(sessions.workspace)


async def test_ignored_folders_are_named_and_left_alone(sessions: Sessions) -> None:
    (sessions.workspace / ".gitignore").write_text("build/\n*.log\n")
    (sessions.workspace / "build").mkdir()
    result = await sessions.run(
        [
            shell("echo x > build/out; echo y > run.log; echo z > z.txt"),
            write("run.log", "by a tool\n"),
            Reply(text="Done."),
        ]
    )
    seen = await timetravel.preview(result.state.session_id)
    assert "build/" in seen.not_covered
    await timetravel.undo(result.state.session_id)
    assert (sessions.workspace / "build" / "out").exists()
    assert not (sessions.workspace / "z.txt").exists()
    # Writes by a file tool can be undone even for ignored files.
    assert (sessions.workspace / "run.log").read_text() == "y\n"


async def test_no_git_repository_is_needed_and_none_is_touched(sessions: Sessions) -> None:
    from tests.running import git, repository

    repository(sessions.workspace, {"a.txt": "a\n"})
    (sessions.workspace / "a.txt").write_text("staged\n")
    git(sessions.workspace, "add", "a.txt")
    index = (sessions.workspace / ".git" / "index").read_bytes()
    objects = files(sessions.workspace / ".git" / "objects")
    result = await sessions.run([write("a.txt", "new\n"), Reply(text="Done.")])
    await timetravel.undo(result.state.session_id)
    assert (sessions.workspace / "a.txt").read_text() == "staged\n"
    assert (sessions.workspace / ".git" / "index").read_bytes() == index
    assert files(sessions.workspace / ".git" / "objects") == objects


async def test_a_link_planted_on_the_way_leads_nowhere(sessions: Sessions, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("precious\n")
    (sessions.workspace / "in").mkdir()
    (sessions.workspace / "in" / "a.txt").write_text("mine\n")
    replies = [read("in/a.txt"), write("in/a.txt", "tool\n"), Reply(text="Done.")]
    result = await sessions.run(replies)
    os.rename(sessions.workspace / "in", sessions.workspace / "moved")
    os.symlink(outside, sessions.workspace / "in")
    with pytest.raises(ConflictError):
        await timetravel.undo(result.state.session_id)
    with pytest.raises(SnapshotError, match=r"cannot put in/a\.txt back"):
        await timetravel.undo(result.state.session_id, force=True)
    assert files(outside) == {"a.txt": "644 b'precious\\n'"}


def test_moves_that_fail_leave_nothing_behind(tmp_path: Path) -> None:
    root, blobs = tmp_path / "root", Blobs(tmp_path / "store")
    (root / "folder").mkdir(parents=True)
    (root / "folder/of somebody else").touch()
    (root / "file").touch()
    before = sorted(root.rglob("*"))
    file = capture(str(root), "file", blobs)
    moves = [Move("a", "", "dir 755"), Move("a/b", "", file), Move("folder", "dir 755", file)]
    with pytest.raises(SnapshotError, match="not empty"):
        carry_out(str(root), moves, blobs)
    assert sorted(root.rglob("*")) == before


async def test_a_session_that_is_open_elsewhere_is_left_alone(sessions: Sessions) -> None:
    async with sessions.agent([write("a.txt", "1\n"), Reply(text="Done.")]) as agent:
        await agent.start("do it").result()
        with pytest.raises(JournalError, match="open in another process"):
            await timetravel.undo(agent.state.session_id)
    assert (sessions.workspace / "a.txt").exists()


async def test_a_session_is_locked_before_it_is_read(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = (await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])).state.session_id
    seen: list[str] = []

    def load(session_id: str) -> AgentState:
        with pytest.raises(JournalError, match="open in another process"):
            Journal(journal_path(session_id))
        seen.append(session_id)
        return load_state(session_id)

    monkeypatch.setattr(timetravel, "load_state", load)
    await timetravel.undo(session)
    monkeypatch.setattr(store, "load_state", load)
    await sessions.run([Reply(text="Again.")], session_id=session)
    assert seen == [session] * 2


@pytest.mark.parametrize("where", ["data", "."])
async def test_a_data_folder_within_the_workspace_is_no_part_of_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(sessions.workspace / where))
    result = await sessions.run([shell("echo 1 > a.txt"), Reply(text="Done.")])
    assert result.state.files_changed == ("a.txt",)
    await timetravel.undo(result.state.session_id)
    assert not (sessions.workspace / "a.txt").exists()
    assert journal_path(result.state.session_id).exists()


async def test_nothing_is_removed_that_the_store_has_lost(sessions: Sessions) -> None:
    (sessions.workspace / "a.txt").write_text("old\n")
    script = [read("a.txt"), write("a.txt", "new\n"), write("b.txt", "b\n"), Reply(text="Done.")]
    result = await sessions.run(script)
    before = files(sessions.workspace)
    (pack,) = sessions.data.glob("snapshots/*/*.pack")
    pack.write_bytes(bytes(pack.stat().st_size))
    with pytest.raises(SnapshotError, match="damaged"):
        await timetravel.undo(result.state.session_id)
    assert files(sessions.workspace) == before
