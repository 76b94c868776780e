"""Measures the cost of checkpoints in a large project: python -m bench.snapshots [FILES]

It makes a project of that many files (default 50,000; 6 kB each on average, 25 per folder) in a
temporary folder. Then it measures the first snapshot, the snapshot of a second session, and the
look after a command and after an edit. For comparison it also measures git, if installed, adding
the same files to a separate repository without compression.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agentcli.environments.snapshots import Snapshots

IN_A_FOLDER = 25
MEAN_BYTES = 6000


def make(root: Path, count: int) -> int:
    """Make a project of ``count`` files, always the same; return its size in bytes."""
    chance = random.Random(1)
    block, total = chance.randbytes(1 << 20), 0
    for folder in range(count // IN_A_FOLDER):
        place = root / f"p{folder % 40}" / f"q{folder // 40 % 25}" / f"r{folder}"
        place.mkdir(parents=True)
        for number in range(IN_A_FOLDER):
            size = min(60_000, int(chance.expovariate(1 / MEAN_BYTES)))
            start = chance.randrange(1 << 19)
            data = b"%d %d\n" % (folder, number) + block[start : start + size]
            (place / f"m{number}.py").write_bytes(data)
            total += len(data)
    (root / ".gitignore").write_text(
        "*.pyc\n__pycache__/\nbuild/\n/docs/_build\n*.log\n!keep.log\n"
    )
    return total


def timed(what: str, work: Callable[[], object]) -> float:
    """Run ``work``, print its wall time and CPU time, and return the wall time in seconds."""
    before, started = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - started, os.times()
    used = after.user - before.user + after.system - before.system
    print(f"{what:<42} {wall * 1e3:9.1f} ms   ({used * 1e3:.0f} ms of the processor)")
    return wall


def steps(snapshots: Snapshots, root: Path) -> None:
    """Make a hundred edits and a hundred commands, and look at the changes after each."""
    edits, commands = [], []
    for number in range(100):
        folder = root / f"p{number % 40}" / f"q{number // 40}"
        path = sorted(folder.glob("r*"))[0] / "m3.py"
        path.write_bytes(b"edited %d\n" % number)
        started = time.perf_counter()
        assert len(snapshots.look(snapshots._watch.changed()).paths) == 1
        edits.append(time.perf_counter() - started)
        for name in range(20):
            (path.parent / f"n{name}.txt").write_text("new\n")
        shutil.move(path, path.with_name("moved.py"))
        started = time.perf_counter()
        assert len(snapshots.look(snapshots._watch.changed()).paths) == 22
        commands.append(time.perf_counter() - started)
    for what, found in (("an edit", edits), ("a command that changes 22 paths", commands)):
        median, worst = statistics.median(found) * 1e3, max(found) * 1e3
        print(f"{'look after ' + what:<42} {median:9.1f} ms   (worst of 100: {worst:.1f} ms)")


def main(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="agentcli-bench-") as place:
        root, store = Path(place) / "project", Path(place) / "store"
        root.mkdir()
        print(f"{count:,} files, {make(root, count) / 1e6:.0f} MB")
        snapshots = Snapshots(str(root), store)
        timed("first taken", snapshots.take)
        steps(snapshots, root)
        timed("look at everything, without inotify", snapshots.look)
        snapshots.close()
        again = Snapshots(str(root), store)
        timed("taken by the next session", again.take)
        again.close()
        if git := shutil.which("git"):
            env = {**os.environ, "GIT_DIR": str(Path(place) / "git"), "GIT_WORK_TREE": str(root)}
            run = [git, "-c", "core.compression=0", "-c", "core.fsync=none"]
            subprocess.run([*run, "init", "-q"], env=env, check=True)
            for what in ("first", "again"):
                add = [*run, "-C", str(root), "add", "-A"]
                timed(
                    f"git add, {what}", functools.partial(subprocess.run, add, env=env, check=True)
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
