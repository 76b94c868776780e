"""The task limit: the kernel enforces it between samples, and a tree that hits it is killed.

Nothing here forks without end: the loops are bounded, and their children only sleep.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from agentcli.sandbox import cgroup
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.tree import SPARE_TASKS
from tests.sandbox.conftest import LANDLOCK_ONLY, LEVELS, Confine

LIMITS = Limits(time_s=100, tasks=64)

FORKS = """
import os, time
os.write(1, b'ready')
os.read(0, 1)
for made in range(1000):
    try: child = os.fork()
    except BlockingIOError: break
    if child == 0: break
if child: os.write(1, b'%d' % made)
time.sleep(100)
"""

DOUBLING = """
import os, time
for _ in range(11):
    try: os.fork()
    except OSError: pass
time.sleep(100)
"""


@pytest.mark.parametrize("level", LEVELS)
async def test_the_kernel_enforces_it_between_samples(level: str, confine: Confine) -> None:
    place = cgroup.find()
    if os.getuid() == 0 and place is None:
        pytest.skip("the kernel limits root's tasks by control groups alone, and gives none here")
    confined = await confine(level)
    said: asyncio.Queue[bytes] = asyncio.Queue()
    reader, writer = os.pipe()
    launch = confined.sandbox.launch(("python3", "-c", FORKS), limits=LIMITS, fds={0: reader})
    process = confined.supervisor.spawn(launch, lambda name, data: said.put_nowait(data))
    assert await said.get() == b"ready"
    wardens = psutil.Process(confined.supervisor.pid).children()
    while place is not None and not any(_is_limited(place, warden.pid) for warden in wardens):
        await asyncio.sleep(0.01)
    try:
        for warden in wardens:
            warden.suspend()
        os.write(writer, b"x")
        assert LIMITS.tasks // 2 < int(await said.get()) <= LIMITS.tasks + SPARE_TASKS
    finally:
        for warden in wardens:
            warden.resume()
        os.close(reader)
        os.close(writer)
    result = await process.wait()
    assert result.error == f"used more than {LIMITS.tasks} tasks"


def _is_limited(place: cgroup.Place, warden: int) -> bool:
    try:
        limit = Path(place.tasks, f"agentcli-{warden}", "pids.max").read_text()
    except FileNotFoundError:
        return False
    return limit == f"{LIMITS.tasks}\n"


@pytest.mark.parametrize("level", (*LEVELS, LANDLOCK_ONLY))
async def test_a_tree_that_doubles_is_killed(level: str, confine: Confine) -> None:
    confined = await confine(level)
    result = await confined.python(DOUBLING, limits=LIMITS)
    assert result.error == f"used more than {LIMITS.tasks} tasks"
