"""Control groups, version 1 and 2: they catch peaks that sampling would miss."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentcli.sandbox import cgroup
from agentcli.sandbox.limits import MIB, Limits
from agentcli.sandbox.process import Launch, Supervisor

ENV = {"PATH": "/usr/bin:/bin"}


def needs_groups() -> None:
    if cgroup.find() is None:
        pytest.skip("this user may make no control groups here")


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_version_1_is_found_below_this_processs_own_groups(tmp_path: Path) -> None:
    for name in ("memory/a/b", "pids/outer"):
        written(tmp_path / name / "cgroup.procs", "")
    own = written(tmp_path / "own", "5:memory:/a/b\n4:cpu,pids:/x/outer\n0::/\n")
    mounts = written(
        tmp_path / "mounts",
        f"31 23 0:28 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"32 23 0:29 /x {tmp_path}/pids rw - cgroup cgroup rw,cpu,pids\n"
        "33 23 0:30 / /proc rw - proc proc rw\n",
    )
    found = cgroup.find(own, mounts)
    assert found is not None and found.version == 1
    assert (found.memory, found.tasks) == (f"{tmp_path}/memory/a/b", f"{tmp_path}/pids/outer")


@pytest.mark.parametrize(("given", "found"), [("cpu memory pids", True), ("memory", False)])
def test_version_2_is_found_beside_it_where_limits_are_given_on(
    given: str, found: bool, tmp_path: Path
) -> None:
    written(tmp_path / "user/app/cgroup.procs", "1\n")
    written(tmp_path / "user/cgroup.procs", "")
    written(tmp_path / "user/cgroup.subtree_control", given)
    own = written(tmp_path / "own", "0::/user/app\n")
    mounts = written(tmp_path / "mounts", f"31 23 0:28 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    place = cgroup.find(own, mounts)
    assert (place is not None) == found
    if place is not None:
        assert (place.memory, place.tasks, place.version) == (f"{tmp_path}/user",) * 2 + (2,)


def test_what_version_2_is_told_and_tells(tmp_path: Path) -> None:
    group = cgroup.Group(cgroup.Place(str(tmp_path), str(tmp_path), 2), "agentcli-1")
    assert group.limit(1000, 10)
    made = tmp_path / "agentcli-1"
    told = {name: (made / name).read_text() for name in ("memory.max", "pids.max")}
    assert told == {"memory.max": "1000", "pids.max": "10"}
    assert not group.out_of_memory() and not group.out_of_tasks()
    (made / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 1\n")
    (made / "pids.events").write_text("max 3\n")
    assert group.out_of_memory() and group.out_of_tasks()
    for file in made.iterdir():
        file.unlink()
    group.remove()
    assert not made.exists() and not group.limit(1000, 10)


def test_no_groups_without_the_files(tmp_path: Path) -> None:
    assert cgroup.find(str(tmp_path / "own"), str(tmp_path / "mounts")) is None


async def test_memory_that_no_process_has_mapped(supervisor: Supervisor) -> None:
    needs_groups()
    script = (
        "import os\nfiles = []\nwhile True:\n"
        " files.append(os.memfd_create('x')); os.write(files[-1], bytes(10**7))"
    )
    launch = Launch(
        (sys.executable, "-S", "-c", script), ENV, limits=Limits(20, memory_bytes=100 * MIB)
    )
    result = await supervisor.exec(launch)
    assert result.memory_exceeded and not result.success


async def test_groups_are_gone_with_their_commands() -> None:
    needs_groups()
    own = Supervisor()
    result = await own.exec(Launch(("cat", "/proc/self/cgroup"), ENV))
    await own.aclose()
    place = cgroup.find()
    assert place is not None
    (name,) = {word for word in result.stdout.replace("\n", "/").split("/") if "agentcli-" in word}
    assert not (Path(place.memory) / name).exists() and not (Path(place.tasks) / name).exists()
