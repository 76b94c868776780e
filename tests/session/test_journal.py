"""The journal: written events survive, whatever happens to the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.agent.events import (
    Compacted,
    CompactionUndone,
    Event,
    MessageAdded,
    ModelAnswered,
    Replaced,
    Rewound,
    RunFinished,
    SessionStarted,
    Status,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    Warned,
)
from agentcli.agent.records import to_record
from agentcli.environments.snapshots import Snapshots, folder_of
from agentcli.errors import JournalError, UsageError
from agentcli.folders import data_folder
from agentcli.messages import (
    FinishReason,
    Image,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    user,
)
from agentcli.session import store
from agentcli.session.deletion import delete_session
from agentcli.session.journal import Journal, read_events, read_timed
from agentcli.session.steps import steps_of

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


async def test_images_of_results_are_read_back_also_beside_a_secret(path: Path) -> None:
    shot = Image(bytes(range(256)), "image/png", "a.png")
    result = ToolResult("1", "look", "[image a.png]", images=(shot, shot))
    journal = Journal(path, secrets=["sk-very-secret"])
    await journal.append(ToolFinished(1, result))
    await journal.append(ToolFinished(1, replace(result, content="sk-very-secret")))
    journal.close()
    plain, redacted = read_events(path)
    assert plain == ToolFinished(1, result)
    assert redacted == ToolFinished(1, replace(result, content="[redacted]"))


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


async def test_a_follower_gets_the_redacted_events(path: Path) -> None:
    journal = Journal(path, secrets=["sk-very-secret", 'pass"word'])
    told: list[tuple[float, Event]] = []
    journal.follower = lambda when, event: told.append((when, event))
    arguments = json.dumps({"key": "sk-very-secret", "other": 'pass"word'})
    events: list[Event] = [TaskGiven("plain"), ToolStarted(1, ToolCall("c", "s", arguments), "run")]
    for event in events:
        await journal.append(event)
    journal.close()
    assert told == list(read_timed(path)) and len(told) == 2
    assert "very-secret" not in str(told) and "word" not in str(told)


async def test_redaction_leaves_the_form_of_a_line(path: Path) -> None:
    quoted = 'pass"word\\1'
    words = ["/some/folder", "task_given", "20260101-1", "read_file", "arguments", "1234567890"]
    journal = Journal(path, secrets=[*words, quoted])
    call = ToolCall("20260101-1", "read_file", json.dumps({"arguments": quoted, "n": 1234567890}))
    events: list[Event] = [
        SessionStarted("20260101-1", "/some/folder", "openai:m", "auto", "full", (), "0.1.0"),
        TaskGiven(f"go to /some/folder with {quoted}", limits={"tokens": 1234567890}),
        ToolStarted(1, call, "read"),
        ToolFinished(1, ToolResult("20260101-1", "read_file", quoted, data={"name": quoted})),
    ]
    for event in events:
        await journal.append(event)
    journal.close()
    assert "word" not in path.read_text()
    session, task, started, finished = read_events(path)
    assert session == events[0]
    assert task == TaskGiven("go to [redacted] with [redacted]", limits={"tokens": 1234567890})
    arguments = '{"arguments": "[redacted]", "n": 1234567890}'
    assert started == ToolStarted(1, ToolCall("20260101-1", "read_file", arguments), "read")
    assert isinstance(finished, ToolFinished)
    assert finished.result.content == "[redacted]"
    assert finished.result.data == {"name": "[redacted]"}


async def test_a_journal_that_was_deleted_meanwhile_is_an_error_at_the_end(path: Path) -> None:
    journal = Journal(path)
    await journal.append(STARTED, sync=True)
    shutil.rmtree(path.parent)
    await journal.append(StepStarted(1))
    with pytest.raises(JournalError, match="deleted"):
        await journal.append(Warned("the end"), sync=True)
    journal.close()


def test_only_regular_files_are_read(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    for file in (path, Path("/dev/zero"), path.parent):
        with pytest.raises(JournalError, match="regular file"):
            list(read_events(file))
    with pytest.raises(JournalError, match="regular file"):
        Journal(path)


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
        (b'{"v":1,"kind":"moon_landing"}', "moon_landing is an event that this version"),
        (b'{"v":1,"kind":"step_finished","step":1,"duration_s":NaN}', "not a journal line"),
        (b'{"v":"1","kind":"step_started","step":1}', "not a journal line"),
        (b'{"v":null,"kind":"step_started","step":1}', "not a journal line"),
        (b'{"v":1,"kind":["step_started"],"step":1}', "not an event"),
        (b'{"v":1,"kind":"step_started","step":"1"}', "step of step_started"),
        (b'{"v":1,"kind":"task_given","text":7}', "text of task_given"),
        (b'{"v":1,"kind":"task_given","text":"","checks":[1]}', "checks of task_given"),
        (b'{"v":1,"kind":"message_added","message":{"role":"user","parts":[[]]}}', "not an event"),
        (b'{"v":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a journal line"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
def test_a_damaged_line_is_named(path: Path, line: bytes, complaint: str) -> None:
    path.parent.mkdir()
    path.write_bytes(line + b"\n")
    with pytest.raises(JournalError, match=complaint) as caught:
        list(read_events(path))
    assert "line 1" in caught.value.message


async def test_a_lost_line_is_noticed(path: Path) -> None:
    journal = Journal(path)
    for event in (STARTED, TaskGiven("one"), TaskGiven("two")):
        await journal.append(event)
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for kept, line in ((lines[1:], 1), (lines[:1] + lines[2:], 2), (lines[:2] + lines[1:], 3)):
        path.write_bytes(b"".join(kept))
        with pytest.raises(JournalError, match=f"line {line}: lines are missing or repeated"):
            list(read_events(path))


async def test_it_can_be_read_in_parts_while_it_grows(path: Path) -> None:
    journal = Journal(path)
    places = []
    for text in ("one", "two", "three"):
        await journal.append(TaskGiven(text))
        places.append(path.stat().st_size)
    journal.close()
    found = [event for _, event in read_timed(path, places[0], places[1])]
    assert found == [TaskGiven("two")]
    assert len(list(read_timed(path, places[0]))) == 2


@pytest.mark.parametrize("tokens", ["5", None, [1], 1.5, True])
def test_tokens_that_are_no_numbers_are_named(path: Path, tokens: object) -> None:
    record = to_record(
        ModelAnswered(1, assistant("x"), FinishReason.STOP, Usage(5, output_tokens=1), 0.1, 1)
    )
    record["usage"]["input_tokens"] = tokens
    path.parent.mkdir()
    path.write_text(json.dumps({"v": 1, **record}) + "\n")
    with pytest.raises(JournalError, match="usage of model_answered"):
        list(read_events(path))


async def test_nothing_is_written_after_the_end(path: Path, tmp_path: Path) -> None:
    journal = Journal(path)
    await journal.append(STARTED)
    journal.close()
    with (tmp_path / "users").open("wb") as users:  # it has the number of the journal's file now
        with pytest.raises(JournalError):
            await journal.append(TaskGiven("late"))
        users.flush()
        assert (tmp_path / "users").stat().st_size == 0
        journal.close()  # and closes nothing of anybody else
        users.write(b"own")
    assert len(list(read_events(path))) == 1


async def test_a_torn_line_that_cannot_be_set_aside_is_told_and_nothing_stays_open(
    path: Path,
) -> None:
    journal = Journal(path)
    await journal.append(STARTED)
    journal.close()
    with path.open("ab") as torn:
        torn.write(b'{"v":1,"kind":"step_st')
    path.with_suffix(".torn").mkdir()  # so that it cannot be written
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):  # the second is not told that another process has it
        with pytest.raises(JournalError, match="torn end"):
            Journal(path)
    assert len(os.listdir("/proc/self/fd")) == before


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

    @pytest.mark.parametrize(
        "name", ["", "../x", "a/b", ".hidden", "none-such", "x" * 5000, "a\0b"], ids=ascii
    )
    def test_a_wrong_id_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError):
            store.load_state(name)

    async def test_a_damaged_journal_does_not_hide_the_others(self) -> None:
        damaged = [b"garbage\n", b'{"v":"1"}\n', b"[" * 60_000 + b"\n", b'{"v":1,"kind":{}}\n']
        for number, content in enumerate(damaged):
            broken = store.journal_path(f"broken{number}")
            broken.parent.mkdir(parents=True)
            broken.write_bytes(content)
        fifo = store.journal_path("fifo")
        fifo.parent.mkdir()
        os.mkfifo(fifo)
        journal = Journal(store.journal_path("s1"))
        await journal.append(STARTED)
        journal.close()
        assert [info.id for info in store.list_sessions()] == ["s1"]
        why = store.unreadable_sessions()
        assert sorted(why) == ["broken0", "broken1", "broken2", "broken3", "fifo"]
        assert "not a journal line" in why["broken0"]
        assert store.find_session("brok" + "en2") == "broken2"  # but found by name

    @pytest.mark.parametrize(
        ("mark", "redo"), [(77, False), (-1, False), (0, False), (0, True)], ids=str
    )
    async def test_an_invalid_rewind_is_reported(self, mark: int, redo: bool) -> None:
        journal = Journal(store.journal_path("s1"))
        await journal.append(STARTED)
        await journal.append(Rewound(mark, {}, {}, redo))
        journal.close()
        with pytest.raises(JournalError, match="are inconsistent"):
            store.load_state("s1")
        with pytest.raises(JournalError, match="are inconsistent"):
            steps_of(read_timed(store.journal_path("s1")))

    async def test_a_long_compaction_after_the_end_does_not_reopen_it(self) -> None:
        journal = Journal(store.journal_path("s1"))
        left_out = tuple(Replaced(i, i + 1, user("left out: " + "x" * 150)) for i in range(600))
        for event in (
            STARTED,
            TaskGiven("fix it"),
            RunFinished(StopReason.FINAL, Status.SOLVED, "done"),
            Compacted(1, "user", 100_000, 20_000, ("prune",), left_out),
            CompactionUndone(1),
        ):
            await journal.append(event)
        assert journal.size > 2 * 64 * 1024
        journal.close()
        (info,) = store.list_sessions()
        assert (info.condition, info.status) == (store.Condition.FINISHED, "solved")

    async def test_a_chat_without_a_task_yet_keeps_its_checkpoints(self, tmp_path: Path) -> None:
        old = Journal(store.journal_path("old"))
        await old.append(replace(STARTED, workspace=str(tmp_path)))
        old.close()
        begun = Journal(store.journal_path("begun"))
        kept = Snapshots(str(tmp_path), folder_of(data_folder(), str(tmp_path)))
        (tmp_path / "a.txt").write_text("before\n")
        kept.take()
        delete_session("old")
        (tmp_path / "a.txt").write_text("after\n")
        digest = kept.look().before["a.txt"].rsplit(" ", 1)[-1]
        assert kept.blobs.get(digest) == b"before\n"
        begun.close()

    async def test_a_copied_folder_is_a_session_of_its_own(self) -> None:
        journal = Journal(store.journal_path("s1"))
        await journal.append(STARTED)
        journal.close()
        shutil.copytree(store.sessions_dir() / "s1", store.sessions_dir() / "s2")
        assert store.load_state("s2").session_id == "s2"
        assert sorted(info.id for info in store.list_sessions()) == ["s1", "s2"]

    def test_results_without_their_calls_are_named(self) -> None:
        path = store.journal_path("s1")
        path.parent.mkdir(parents=True)
        calls = assistant("", ToolCall("a", "read_file"))
        events = [
            ModelAnswered(1, calls, FinishReason.TOOL_CALLS, Usage(), 0.1, 1),
            ToolFinished(1, ToolResult("b", "read_file", "x")),
        ]
        path.write_text("".join(json.dumps({"v": 1, **to_record(e)}) + "\n" for e in events))
        with pytest.raises(JournalError, match="are inconsistent"):
            store.load_state("s1")


def test_ids_are_distinct_and_sort_by_time() -> None:
    ids = [store.new_session_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert ids[0][:15] <= ids[-1][:15]
