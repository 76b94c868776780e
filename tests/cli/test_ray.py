"""A batch on a Ray cluster of two machines; one of them is lost during the batch."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply, Request

pytest.importorskip("ray", reason="the extra ray is not installed")

PATIENCE_S = 400
"""On a busy machine, Ray takes a minute to start a worker."""


@pytest.fixture
def clustered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts a cluster whose nodes have the environment of the command line."""
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:

        def start(cli: Cli, cpus: int = 1) -> Any:
            for name, value in cli.env.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            head = {"num_cpus": cpus, "include_dashboard": False}
            try:
                cluster = Cluster(initialize_head=True, head_node_args=head)
            except Exception as error:  # Ray allows its own processes 30 s to start
                pytest.skip(f"Ray itself does not start here: {error}")
            stack.callback(cluster.shutdown)
            cli.extra = {"RAY_ADDRESS": cluster.address}
            return cluster

        yield start


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_machine_that_is_lost_costs_no_task_and_none_runs_twice(
    cli: Cli,
    serve: Serve,
    clustered: Callable[..., Any],
    workspace: Path,
    tmp_path: Path,
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("a", "b", "c", "d"):
        (tasks / f"{name}.md").write_text(f"Write {name}.txt and take away old.txt.\n")
    (workspace / "old.txt").write_text("old\n")
    for git in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(workspace), *who, *git], check=True)
    begun: Counter[str] = Counter()
    three_at_once, lost = threading.Event(), threading.Event()

    def answer(request: Request) -> Reply:
        messages = request.json["messages"]
        name = next(name for name in "abcd" if f"Write {name}.txt" in str(messages[1]))
        if messages[-1]["role"] == "tool":
            return Reply(text=f"Wrote {name}.")
        begun[name] += 1
        if all(begun[slow] for slow in "bcd"):
            three_at_once.set()
        write = ("write_file", {"path": f"{name}.txt", "content": f"{name}\n"})
        calls = [write, ("shell", {"command": "git rm -q old.txt"})]
        return Reply(calls=calls, until=None if name == "a" else lost)

    cli.server = serve([answer] * 40).url
    cluster = clustered(cli)
    second = cluster.add_node(num_cpus=2)
    process = cli.start(
        *("run", str(tasks), "--model", "openai:m", "--workspace", str(workspace)),
        *("--executor", "ray", "--check", "test ! -e old.txt"),
    )
    try:
        assert three_at_once.wait(PATIENCE_S), process.poll()
        cluster.remove_node(second, allow_graceful=False)
        lost.set()
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    print(err)
    assert process.returncode == 0, err
    results = {result["task"]: result for result in map(json.loads, out.splitlines())}
    assert len(out.splitlines()) == len(results) == 4
    for name, result in results.items():
        assert (result["status"], result["final_answer"]) == ("solved", f"Wrote {name}.")
        assert (Path(result["workspace"]) / f"{name}.txt").read_text() == f"{name}\n"
        assert not (Path(result["workspace"]) / "old.txt").exists()
        patch = Path(result["patch"]).read_text()
        assert f"+{name}\n" in patch and "deleted file mode" in patch
    # The finished task did not run again. Of the three others, two were on the lost machine.
    assert begun["a"] == 1
    assert sorted(begun[slow] for slow in "bcd") == [1, 2, 2]
    (journal,) = (cli.home / "data" / "batches").glob("*/batch.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    marked = Counter(entry["task"] for entry in entries if "interrupted" in entry)
    assert marked == {name: 1 for name, times in begun.items() if times == 2}
    # The sessions were brought back from the nodes.
    assert len(cli.run("sessions", "list").out.splitlines()) == 4


def recorded_results(cli: Cli) -> list[str]:
    journals = (cli.home / "data" / "batches").glob("*/batch.jsonl")
    return [
        line for file in journals for line in file.read_text().splitlines() if '"result"' in line
    ]


@pytest.mark.timeout(3 * PATIENCE_S)
def test_an_interrupted_and_a_killed_batch_go_on_where_they_were(
    cli: Cli,
    serve: Serve,
    clustered: Callable[..., Any],
    workspace: Path,
    tmp_path: Path,
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "quick.md").write_text("Be quick.\n")
    (tasks / "slow.md").write_text("Take your time.\n")
    begun: Counter[str] = Counter()
    slow_begun, go_on = threading.Event(), threading.Event()

    def answer(request: Request) -> Reply:
        if "Be quick." in str(request.json["messages"]):
            begun["quick"] += 1
            return Reply(text="Done.")
        begun["slow"] += 1
        slow_begun.set()
        return Reply(text="Done at last.", until=go_on)

    cli.server = serve([answer] * 20).url
    clustered(cli, cpus=2)
    command = ["run", str(tasks), "--model", "openai:m", "--workspace", str(workspace)]
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = cli.start(
            *(*command, "--executor", "ray"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not (slow_begun.is_set() and recorded_results(cli)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        slow_begun.clear()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code
    go_on.set()
    ended = cli.run(*command, "--executor", "ray", timeout=PATIENCE_S)
    assert ended.code == 0, ended.err
    results = {result["task"]: result for result in map(json.loads, ended.out.splitlines())}
    assert results["slow"]["final_answer"] == "Done at last."
    assert begun == {"quick": 1, "slow": 3}


def test_a_missing_cluster_is_one_error(cli: Cli, workspace: Path) -> None:
    (workspace / "tasks").mkdir()
    (workspace / "tasks" / "one.md").write_text("Do it.\n")
    cli.extra = {"RAY_ADDRESS": "127.0.0.1:1"}
    command = ["run", "tasks", "--model", "openai:m", "--executor", "ray"]
    ended = cli.run(*command, cwd=workspace, timeout=PATIENCE_S)
    assert ended.code == 2 and ended.error.startswith("no Ray cluster 127.0.0.1:1: ")
