"""Batches: each task runs in its own copy, in parallel, and only once even after a crash."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agentcli.cli.batch import finish, opened
from agentcli.cli.batch_ray import Done, settled
from agentcli.workspace_archive import pack
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply, Request


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.md").write_text(f"Write {name}.txt with its name in it.\n")
    return folder


@pytest.fixture
def repository(workspace: Path) -> Path:
    (workspace / "kept.txt").write_text("kept\n")
    for command in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "start"),
    ):
        subprocess.run(["git", "-C", str(workspace), *command], check=True)
    return workspace


def answer(request: Request) -> Reply:
    """A model that writes the file named in the task, then reports it."""
    messages = request.json["messages"]
    name = next(
        found[1]
        for message in messages
        if (found := re.match(r"Write (\w+)\.txt", str(message.get("content"))))
    )
    if messages[-1]["role"] == "tool":
        return Reply(text=f"Wrote {name}.")
    return Reply(calls=[("write_file", {"path": f"{name}.txt", "content": f"{name}\n"})])


def arguments(tasks: Path, workspace: Path, *more: str) -> list[str]:
    return ["run", str(tasks), "--model", "openai:m", "--workspace", str(workspace), *more]


def results(out: str) -> dict[str, Any]:
    return {result["task"]: result for result in map(json.loads, out.splitlines())}


def test_each_task_has_a_worktree_and_leaves_a_patch(
    cli: Cli, serve: Serve, tasks: Path, repository: Path
) -> None:
    (repository / "mine.txt").write_text("not committed\n")
    before = subprocess.run(
        ["git", "-C", str(repository), "status", "--porcelain"], capture_output=True, check=True
    )
    cli.server = serve([answer] * 6).url
    ended = cli.run(*arguments(tasks, repository, "--jobs", "2", "--check", "test -s kept.txt"))
    assert ended.code == 0, ended.err
    found = results(ended.out)
    assert sorted(found) == ["one", "three", "two"]
    for name, result in found.items():
        assert (result["status"], result["final_answer"]) == ("solved", f"Wrote {name}.")
        assert result["checks"][0]["passed"]
        assert (Path(result["workspace"]) / f"{name}.txt").read_text() == f"{name}\n"
        assert not (Path(result["workspace"]) / "mine.txt").exists()
        patch = Path(result["patch"])
        subprocess.run(["git", "-C", str(repository), "apply", "--check", str(patch)], check=True)
        assert f"+{name}\n" in patch.read_text()
        assert not (repository / f"{name}.txt").exists()
    after = subprocess.run(
        ["git", "-C", str(repository), "status", "--porcelain"], capture_output=True, check=True
    )
    assert after.stdout == before.stdout
    assert "changes that are not committed are left out" in ended.err
    assert "3 solved" in ended.err


def test_one_that_fails_does_not_stop_the_others(
    cli: Cli, serve: Serve, tasks: Path, workspace: Path
) -> None:
    (tasks / "one.md").write_text("---\nmodel: nobody:m\n---\nWrite one.txt.\n")
    (tasks / "three.md").write_text("---\nchecks: ['false']\n---\nWrite three.txt.\n")
    cli.server = serve([answer] * 12).url
    ended = cli.run(*arguments(tasks, workspace, "--jobs", "3"))
    # The model of the command line overrides that of the task.
    assert {name: one["status"] for name, one in results(ended.out).items()} == {
        "one": "solved",
        "two": "solved",
        "three": "unsolved",
    }
    assert ended.code == 1


def test_the_result_of_a_task_that_could_not_begin_has_all_keys(
    cli: Cli, serve: Serve, tasks: Path, workspace: Path
) -> None:
    (tasks / "one.md").write_text("---\nmodel: nobody:m\n---\nWrite one.txt.\n")
    (tasks / "three.md").unlink()
    cli.server = serve([answer] * 2).url
    cli.extra = {"AGENTCLI_MODEL": "openai:m"}
    ended = cli.run("run", str(tasks), "--workspace", str(workspace))
    one, two = (results(ended.out)[name] for name in ("one", "two"))
    assert (one["status"], two["status"], ended.code) == ("failed", "solved", 1)
    assert one.keys() == two.keys() and one["usage"].keys() == two["usage"].keys()
    assert one["error"]["type"] == "ConfigError" and "nobody" in one["detail"]


def test_after_a_kill_nothing_is_lost_and_nothing_runs_twice(
    cli: Cli, serve: Serve, tasks: Path, repository: Path
) -> None:
    def slow(request: Request) -> Reply:
        reply = answer(request)
        if "Write two.txt" in str(request.json["messages"]) and reply.calls:
            return Reply(calls=[("shell", {"command": "echo x >> count.txt; sleep 60"})])
        return reply

    first = serve([slow] * 6)
    cli.server = first.url
    process = cli.start(*arguments(tasks, repository, "--jobs", "3"))
    deadline = time.monotonic() + 60
    work = cli.home / "data" / "batches"
    ended_tasks = 0
    while not list(work.glob("*/work/two/count.txt")) or ended_tasks < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
        ended_tasks = sum(j.read_text().count('"result":') for j in work.glob("*/batch.jsonl"))
    process.send_signal(signal.SIGKILL)
    process.communicate()

    second = serve([Reply(text="It was interrupted; I leave it.")] * 3)
    cli.server = second.url
    ended = cli.run(*arguments(tasks, repository, "--jobs", "3"))
    assert ended.code == 0, ended.err
    assert "resuming a batch" in ended.err
    found = results(ended.out)
    assert sorted(found) == ["one", "three", "two"]
    assert found["one"]["final_answer"] == "Wrote one."
    assert found["two"]["final_answer"] == "It was interrupted; I leave it."
    assert len(second.requests) == 1
    told = second.requests[0].json["messages"]
    assert "interrupted" in str(told[-1]["content"]) or "interrupted" in str(told[-2]["content"])
    assert (Path(found["two"]["workspace"]) / "count.txt").read_text() == "x\n"

    cli.server = serve([answer] * 6).url
    again = cli.run(*arguments(tasks, repository, "--jobs", "3"))
    assert "going on" not in again.err and len(results(again.out)) == 3


def test_interrupting_ends_in_order_and_goes_on_later(
    cli: Cli, serve: Serve, tasks: Path, workspace: Path
) -> None:
    slow = Reply(calls=[("shell", {"command": "touch begun; sleep 60"})])
    server = serve([slow] * 3)
    cli.server = server.url
    process = cli.start(*arguments(tasks, workspace, "--jobs", "3"))
    deadline = time.monotonic() + 60
    work = cli.home / "data" / "batches"
    while len(list(work.glob("*/work/*/begun"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not out
    cli.server = serve([Reply(text="Done.")] * 3).url
    ended = cli.run(*arguments(tasks, workspace, "--jobs", "3"))
    assert ended.code == 0 and len(results(ended.out)) == 3


def test_several_attempts_at_each_task(
    cli: Cli, serve: Serve, tasks: Path, repository: Path
) -> None:
    (tasks / "three.md").unlink()
    begun: Counter[str] = Counter()

    def second_time_right(request: Request) -> Reply:
        messages = request.json["messages"]
        name = "one" if "Write one" in str(messages) else "two"
        begun[name] += len(messages) == 2
        if messages[-1]["role"] == "tool" or len(messages) > 4:
            return Reply(text="That is it.")
        text = name if begun[name] > 1 else "wrong"
        return Reply(calls=[("write_file", {"path": "name.txt", "content": f"{text}\n"})])

    cli.server = serve([second_time_right] * 30).url
    check = ["--check", "grep -qxE 'one|two' name.txt"]
    refused = cli.run(*arguments(tasks, repository, "--best-of", "3"))
    assert refused.code == 2 and "one.md: --best-of chooses by checks" in refused.error
    ended = cli.run(*arguments(tasks, repository, "--best-of", "3", "--jobs", "2", *check))
    assert ended.code == 0, ended.err
    for name, result in results(ended.out).items():
        assert (result["status"], result["attempts"]) == ("solved", 2)
        assert (Path(result["workspace"]) / "name.txt").read_text() == f"{name}\n"
        assert "wrong" not in Path(result["patch"]).read_text()
    assert begun == {"one": 2, "two": 2}


def test_what_cannot_be_a_batch(cli: Cli, tasks: Path, workspace: Path) -> None:
    assert "takes no -p" in cli.run(*arguments(tasks, workspace, "-p", "x")).error
    (tasks / "one.md").write_text("---\nnonsense: 1\n---\nx\n")
    assert "one.md" in cli.run(*arguments(tasks, workspace)).error
    empty = tasks.parent / "empty"
    empty.mkdir()
    ended = cli.run(*arguments(empty, workspace))
    assert ended.code == 2 and "no task in it" in ended.error


def test_what_came_back_from_a_cluster_survives_a_crash(
    tmp_path: Path, workspace: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after a result arrived and before it is recorded, at each step."""
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    (workspace / "old.txt").write_text("old\n")
    far = tmp_path / "far"
    (far / "session").mkdir(parents=True)
    (far / "new.txt").write_text("new\n")
    (far / "session" / "events.jsonl").write_text("{}\n")
    done = Done(
        {"status": "solved", "final_answer": "Done."},
        pack(far, [far / "new.txt"]),
        ("old.txt",),
        pack(far, [far / "session"]),
    )
    with opened(tasks, workspace) as batch:
        place = batch.copy_of("one")
        done.save(batch.arrival_of("one"))
    for step in ("unpack", "finish"):
        with opened(tasks, workspace) as batch, monkeypatch.context() as broken:
            broken.setattr(f"agentcli.cli.batch_ray.{step}", Mock(side_effect=OSError("died")))
            with pytest.raises(OSError, match="died"):
                list(settled(batch))
            assert batch.open == ["one", "three", "two"]
    with opened(tasks, workspace) as batch:
        assert list(settled(batch)) == ["one"]
        assert batch.ended["one"]["final_answer"] == "Done."
        assert (place / "new.txt").read_text() == "new\n" and not (place / "old.txt").exists()
        assert (tmp_path / "data" / "sessions" / "session" / "events.jsonl").exists()
        assert not list(batch.folder.glob("*.arrived*"))
    with opened(tasks, workspace) as batch:
        assert batch.open == ["three", "two"] and list(settled(batch)) == []
        done.save(batch.arrival_of("two"))
        (tasks / "two.md").write_text("Another task.")  # the result belongs to the old text
        assert list(settled(batch)) == []


@pytest.mark.parametrize("answer", ["one\u2028two\x85three", "half a pair: \ud83d"])
def test_any_answer_is_kept_in_the_journal(
    answer: str, tmp_path: Path, workspace: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    with opened(tasks, workspace) as batch:
        finish(batch, "one", {"status": "solved", "final_answer": answer})
    with opened(tasks, workspace) as batch:
        assert batch.open == ["three", "two"]
        assert batch.ended["one"]["final_answer"] == answer


@pytest.mark.parametrize("folder", ["workspace", "repository"])
def test_a_task_that_was_edited_gets_a_fresh_copy(
    folder: str,
    tmp_path: Path,
    tasks: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTCLI_DATA_DIR", str(tmp_path / "data"))
    workspace = request.getfixturevalue(folder)
    with opened(tasks, workspace) as batch:
        place = batch.copy_of("one")
        (place / "done.txt").write_text("done\n")
        assert batch.copy_of("one") == place and (place / "done.txt").exists()
    (tasks / "one.md").write_text("Another task.")
    with opened(tasks, workspace) as batch:
        assert batch.copy_of("one") == place and not (place / "done.txt").exists()
        (earlier,) = place.parent.glob("one.*-*")
        assert (earlier / "done.txt").read_text() == "done\n"
        (place / "new.txt").touch()
        assert (batch.patch_of("one") is not None) == (folder == "repository")
