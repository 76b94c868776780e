"""With a full disk or a read-only data folder, nothing happens that is not recorded."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentcli.agent.events import StopReason, ToolFinished, ToolStarted, Warned
from agentcli.agent.folding import fold_all
from agentcli.config import load
from agentcli.errors import JournalError, SnapshotError
from agentcli.messages import Outcome, validate_history
from agentcli.session import timetravel
from agentcli.session.journal import read_events
from agentcli.session.store import journal_path, list_sessions
from tests.server import Reply
from tests.session.conftest import Sessions, files, shell, write


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Like a full disk, make writes fail that grow a file beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


SCRIPT = [
    shell("echo once >> count.txt"),
    shell("echo twice >> count.txt"),
    Reply(text="Done."),
]


async def test_a_disk_that_fills_up_at_any_point(sessions: Sessions) -> None:
    whole = await sessions.run(SCRIPT)
    size = journal_path(whole.state.session_id).stat().st_size
    prompt = len(whole.state.history[0].text)
    steps = 6
    for part in range(steps):
        (sessions.workspace / "count.txt").unlink(missing_ok=True)
        limit = prompt + 1500 + (size - prompt - 2000) * part // (steps - 1)
        async with sessions.agent(SCRIPT) as agent:
            with files_no_larger_than(limit):
                result = await agent.start("do it").result()
        assert result.exit_code == 5, (limit, size)
        assert (result.state.stop, result.state.error) == (
            StopReason.UNRECOVERABLE_ERROR,
            "JournalError",
        )
        session = agent.session.session_id
        path = journal_path(session)
        manifest = json.loads((path.parent / "manifest.json").read_bytes())
        assert manifest["status"] == "interrupted"  # the end could not be recorded
        events = list(read_events(path))  # every line is complete
        started = [e.call.id for e in events if isinstance(e, ToolStarted)]
        done = (sessions.workspace / "count.txt").exists() and (
            sessions.workspace / "count.txt"
        ).read_text().split()
        assert len(done or []) <= len(started)  # no command ran unrecorded

        resumed = await sessions.run([Reply(text="So be it.")], task="", session_id=session)
        assert resumed.state.answer == "So be it."
        after = list(read_events(path))
        assert after[: len(events)] == events
        history = tuple(fold_all(after).history)
        validate_history(history)
        # No call ran again; the effect of a started call without a result is reported as unknown.
        assert [e.call.id for e in after if isinstance(e, ToolStarted)] == started
        ended = {e.result.call_id for e in events if isinstance(e, ToolFinished)}
        unknown = {
            e.result.call_id: e.result for e in after[len(events) :] if isinstance(e, ToolFinished)
        }
        for call in set(started) - ended:
            assert unknown[call].outcome is Outcome.CANCELLED
            assert "unknown" in unknown[call].content


async def test_a_data_folder_that_cannot_be_written(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCLI_DATA_DIR", "/proc/nowhere")
    with pytest.raises(JournalError, match="set AGENTCLI_DATA_DIR") as failed:
        try:
            await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])
        except JournalError as error:
            raise JournalError(error.line()) from error
    assert failed.value.exit_code == 5
    assert files(sessions.workspace) == {}


async def test_contents_that_cannot_be_kept_are_told_of(sessions: Sessions) -> None:
    sessions.data.mkdir()
    (sessions.data / "snapshots").write_text("in the way\n")
    result = await sessions.run([write("a.txt", "1\n"), Reply(text="Done.")])
    assert result.exit_code == 0 and (sessions.workspace / "a.txt").exists()
    session = result.state.session_id
    warned = [e.text for e in read_events(journal_path(session)) if isinstance(e, Warned)]
    assert len(warned) == 1 and "cannot be undone" not in warned[0]
    assert warned[0].startswith("from here on, not every change of files can be undone")
    with pytest.raises(SnapshotError):
        await timetravel.undo(session)
    assert (sessions.workspace / "a.txt").exists()
    await timetravel.undo(session, files=False)
    assert sessions.state(session).task == ""


async def test_a_file_that_cannot_be_put_back_undoes_nothing(
    sessions: Sessions, tmp_path: Path
) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (sessions.workspace / name).write_text(f"old {name}\n" * 400)
    result = await sessions.run([shell("for f in *.txt; do echo new > $f; done"), Reply(text="D.")])
    session, after = result.state.session_id, files(sessions.workspace)
    with files_no_larger_than(1000), pytest.raises(SnapshotError, match=r"cannot put a\.txt back"):
        await timetravel.undo(session)
    assert files(sessions.workspace) == after
    assert sessions.state(session).history == result.state.history
    await timetravel.undo(session)
    assert (sessions.workspace / "b.txt").read_text() == "old b.txt\n" * 400
    assert [each.condition for each in list_sessions()] == ["finished"]


async def test_nothing_is_kept_where_the_settings_say_so(sessions: Sessions) -> None:
    settings = load(sessions.workspace, flags={"snapshots": False})
    script = [write("a.txt", "1\n"), Reply(text="Done.")]
    result = await sessions.run(script, settings=settings)
    assert result.state.files_changed == ("a.txt",)
    assert not (sessions.data / "snapshots").exists()
    done = await timetravel.undo(result.state.session_id)
    assert done.paths == () and (sessions.workspace / "a.txt").exists()
