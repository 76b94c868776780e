"""The journal: what was written is there, whatever happens to the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentcli.agent.events import MessageAdded, SessionStarted, StepStarted, TaskGiven, Warned
from agentcli.errors import JournalError, UsageError
from agentcli.messages import user
from agentcli.session import store
from agentcli.session.journal import Journal, read_events

STARTED = SessionStarted("s1", "/w", "openai:m", "auto", "full", (), "0.1.0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s1" / "events.jsonl"


async def test_what_is_appended_is_read_back(path: Path) -> None:
    journal = Journal(path)
    events = [STARTED, TaskGiven("fix\u2028it \ud83d", ("a",)), MessageAdded(user("x\r\ny"))]
    for event in events:
        await journal.append(event, sync=True)
    journal.close()
    assert list(read_events(path)) == events
    first = json.loads(path.read_bytes().splitlines()[0])
    assert first["v"] == 1 and first["n"] == 0 and first["kind"] == "session_started"


async def test_only_the_user_may_read_it(path: Path) -> None:
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_keys_are_redacted(path: Path) -> None:
    journal = Journal(path, secrets=["sk-very-secret", ""])
    await journal.append(TaskGiven("my key is sk-very-secret, keep it"))
    journal.close()
    assert "very-secret" not in path.read_text()
    assert list(read_events(path)) == [TaskGiven("my key is [redacted], keep it")]


async def test_a_torn_last_line_is_ignored_then_set_aside(path: Path) -> None:
    journal = Journal(path)
    await journal.append(STARTED)
    journal.close()
    with open(path, "ab") as file:
        file.write(b'{"v":1,"kind":"step_st')
    assert list(read_events(path)) == [STARTED]
    journal = Journal(path)
    await journal.append(StepStarted(1))
    journal.close()
    assert list(read_events(path)) == [STARTED, StepStarted(1)]
    assert path.with_suffix(".torn").read_bytes() == b'{"v":1,"kind":"step_st\n'


async def test_two_processes_cannot_hold_one_session(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(JournalError, match="open in another process"):
        Journal(path)
    journal.close()
    Journal(path).close()


async def test_a_full_disk_is_an_error_and_leaves_whole_lines(path: Path) -> None:
    code = f"""
import asyncio, resource, signal
from pathlib import Path
from agentcli.agent.events import Warned
from agentcli.errors import JournalError
from agentcli.session.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
async def main():
    for _ in range(100):
        await journal.append(Warned("x" * 90))
try:
    asyncio.run(main())
except JournalError as error:
    print(error.line())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "cannot write the session journal" in done.stdout, done.stderr
    events = list(read_events(path))
    assert 0 < len(events) < 100 and all(event == Warned("x" * 90) for event in events)
    assert path.read_bytes().endswith(b"\n")


async def test_kill_9_loses_nothing_that_was_appended(path: Path) -> None:
    code = f"""
import asyncio, os, signal
from pathlib import Path
from agentcli.agent.events import StepStarted
from agentcli.session.journal import Journal
journal = Journal(Path({str(path)!r}))
async def main():
    for n in range(50):
        await journal.append(StepStarted(n))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list(read_events(path)) == [StepStarted(n) for n in range(50)]


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(JournalError, match="/proc/none"):
        Journal(Path("/proc/none/events.jsonl"))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"garbage", "not a journal line"),
        (b'{"v":99,"kind":"step_started","step":1}', "newer agentcli"),
        (b'{"v":1,"kind":"moon_landing"}', "not an event"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: bytes, complaint: str) -> None:
    path.parent.mkdir()
    path.write_bytes(line + b"\n")
    with pytest.raises(JournalError, match=complaint) as caught:
        list(read_events(path))
    assert "line 1" in caught.value.message


class TestStore:
    @pytest.fixture(autouse=True)
    def data_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))

    async def test_a_session_is_running_while_its_process_lives(self) -> None:
        journal = Journal(store.journal_path("s1"))
        await journal.append(STARTED)
        await journal.append(TaskGiven("fix it"))
        info = store.list_sessions(Path("/w"))[0]
        assert (info.id, info.task, info.condition) == ("s1", "fix it", store.Condition.RUNNING)
        journal.close()
        assert [i.id for i in store.interrupted(Path("/w"))] == ["s1"]
        assert store.interrupted(Path("/elsewhere")) == []

    async def test_the_state_comes_back(self) -> None:
        journal = Journal(store.journal_path("s1"))
        for event in (STARTED, TaskGiven("fix it"), MessageAdded(user("fix it"))):
            await journal.append(event)
        journal.close()
        state = store.load_state("s1")
        assert state.task == "fix it" and [m.text for m in state.history] == ["fix it"]

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "none-such"])
    def test_a_wrong_id_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError):
            store.load_state(name)

    def test_a_damaged_journal_does_not_hide_the_others(self) -> None:
        broken = store.journal_path("broken")
        broken.parent.mkdir(parents=True)
        broken.write_bytes(b"garbage\n")
        assert store.list_sessions() == []


def test_ids_are_distinct_and_sort_by_time() -> None:
    ids = [store.new_session_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert ids[0][:15] <= ids[-1][:15]
