"""A batch on a Ray cluster of two machines, one of which is lost in the middle."""

from __future__ import annotations

import json
import subprocess
import threading
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

PATIENCE_S = 200


@pytest.fixture
def clustered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Cli], Any]]:
    """Starts a head with one processor; its machines have the environment of the command line."""
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:

        def start(cli: Cli) -> Any:
            for name, value in cli.env.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            head = {"num_cpus": 1, "include_dashboard": False}
            cluster = Cluster(initialize_head=True, head_node_args=head)
            stack.callback(cluster.shutdown)
            cli.extra = {"RAY_ADDRESS": cluster.address}
            return cluster

        yield start


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_machine_that_is_lost_costs_no_task_and_none_runs_twice(
    cli: Cli,
    serve: Serve,
    clustered: Callable[[Cli], Any],
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
    # The one that had ended was not begun again; of the three others two were on the lost machine.
    assert begun["a"] == 1
    assert sorted(begun[slow] for slow in "bcd") == [1, 2, 2]
    (journal,) = (cli.home / "data" / "batches").glob("*/batch.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    marked = Counter(entry["task"] for entry in entries if "interrupted" in entry)
    assert marked == {name: 1 for name, times in begun.items() if times == 2}
    # Their sessions came home, and the nodes have kept nothing.
    assert len(cli.run("sessions", "list").out.splitlines()) == 4
