"""Test runs in forks of a warm interpreter: same results as elsewhere, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcli.environments import forking
from agentcli.environments.base import ExecResult
from agentcli.environments.copies import copied
from agentcli.environments.warm import WarmEnvironment
from agentcli.sandbox.limits import Limits
from tests.running import pytest_ini

PYTEST = (sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider")
UNITTEST = (sys.executable, "-m", "unittest")
ENV = {"PYTHONDONTWRITEBYTECODE": "1"}
LIMITS = Limits(time_s=60)
CALC = "def low(a, b):\n    if a < b:\n        return a\n    return a\n\n\ndef idle():\n    pass\n"
FILES = {
    "calc.py": CALC,
    "test_calc.py": (
        "import unittest\nfrom calc import low\n\n\nclass Low(unittest.TestCase):\n"
        "    def test_first(self):\n        self.assertEqual(low(1, 2), 1)\n\n"
        "    def test_second(self):\n        self.assertEqual(low(2, 1), 1)\n"
    ),
    **pytest_ini(),
}


@pytest.fixture
async def warm(workspace: Path) -> AsyncIterator[WarmEnvironment]:
    for name, text in FILES.items():
        (workspace / name).write_text(text)
    async with copied(workspace, kind=WarmEnvironment) as copy:
        assert isinstance(copy, WarmEnvironment)
        yield copy


def same(result: ExecResult) -> str:
    """The output of a run without its duration."""
    return re.sub(r"in [\d.]+s", "in s", result.stdout + result.stderr)


@pytest.mark.parametrize("argv", [PYTEST, UNITTEST])
async def test_same_results_as_cold_and_fresh_each_time(
    warm: WarmEnvironment, argv: tuple[str, ...]
) -> None:
    cold = await super(WarmEnvironment, warm).exec(argv, limits=LIMITS, env=ENV)
    with warm.tracing() as lines:
        first = await warm.exec(argv, limits=LIMITS, env=ENV)
    second = await warm.exec(argv, limits=LIMITS, env=ENV)
    assert cold.exit_code == first.exit_code == second.exit_code == 1
    assert same(second) == same(cold)
    assert (lines.failed, lines.passed) == (1, 1)
    # The head of ``low`` runs in both tests, its second return only in the failing one.
    assert lines.ran["calc.py"][2] == (1, 1) and lines.ran["calc.py"][3] == (0, 1)
    assert lines.ran["calc.py"][4] == (1, 0) and 8 not in lines.ran["calc.py"]
    # Same size and same second as before, yet stale bytecode must not be used.
    await warm.write("calc.py", CALC.replace("    return a\n\n", "    return b\n\n").encode())
    assert (await warm.exec(argv, limits=LIMITS, env=ENV)).success
    assert any(warm._warm.values())


async def test_libraries_within_the_workspace_are_not_its_own_code(warm: WarmEnvironment) -> None:
    library = ".venv/lib/python3/site-packages"
    await warm.write(f"{library}/lower.py", CALC.encode())
    await warm.write(
        "calc.py", b"from lower import low as lowest\n\n\ndef low(a, b):\n    return lowest(a, b)\n"
    )
    env = {**ENV, "PYTHONPATH": library}
    with warm.tracing() as lines:
        await warm.exec(PYTEST, limits=LIMITS, env=env)
    assert (lines.failed, lines.passed) == (1, 1)
    assert sorted(lines.ran) == ["calc.py", "test_calc.py"]


async def test_a_run_out_of_time_does_not_affect_the_next(warm: WarmEnvironment) -> None:
    await warm.write("calc.py", b"while True:\n    pass\n")
    stuck = await warm.exec(UNITTEST, limits=Limits(time_s=1.0), env=ENV)
    assert stuck.timed_out and not stuck.success and stuck.exit_code is None
    await warm.write("calc.py", CALC.encode())
    assert (await warm.exec(UNITTEST, limits=LIMITS, env=ENV)).exit_code == 1
    assert all(warm._warm.values())


def test_a_run_that_waits_for_the_processor_is_given_time() -> None:
    waits = (sys.executable, "-c", "input()")
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(waits, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        # A process that has hardly run yet gets extra time (500 s), but not endlessly (1e6 s).
        assert forking.watch(child.pid, [], time.monotonic() - 1e6, 300.0, theirs) is None
        child.stdin.write(b"\n")
        child.stdin.close()
        assert forking.watch(child.pid, [], time.monotonic() - 500.0, 300.0, theirs) == 0


def test_a_run_that_has_ended_is_not_waited_for_though_something_keeps_its_pipe() -> None:
    streams = [forking.Stream(1 << 16) for _ in range(2)]
    script = "sleep 60 >/dev/null & sleep 0.3; echo passed"  # what it leaves keeps stderr
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            ("sh", "-c", script),
            stdout=streams[0].writer,
            stderr=streams[1].writer,
            start_new_session=True,
        ) as child,
    ):
        for stream in streams:
            os.close(stream.writer)
        # The end is there before anybody looks, as on a busy machine.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        begun = time.monotonic()
        assert forking.watch(child.pid, streams, begun, 30.0, theirs) == 0
        assert time.monotonic() - begun < 25 and streams[0].text() == "passed\n"
        os.killpg(child.pid, signal.SIGKILL)


async def test_what_a_run_leaves_behind_is_ended(warm: WarmEnvironment) -> None:
    leaves = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    look = (
        "import os\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: line = open(f'/proc/{pid}/cmdline').read()\n"
        "    except OSError: continue  # ended meanwhile\n"
        "    assert 'sleep(600)' not in line, pid\n"
    )
    for text in (leaves, look):
        await warm.write("test_left.py", text.encode())
        result = await warm.exec((*UNITTEST, "test_left"), limits=LIMITS, env=ENV)
        assert result.exit_code in (0, 5), result.stderr  # 5: no tests ran, since Python 3.12
    assert all(warm._warm.values())


async def test_a_run_that_kills_the_interpreter_is_run_alone(warm: WarmEnvironment) -> None:
    await warm.write(
        "test_kill.py",
        b"import os, sys\ntry:\n    parent = open(f'/proc/{os.getppid()}/cmdline').read()\n"
        b"except OSError:\n    parent = 'hidden from a command that runs alone'\n"
        b"if 'forking' in parent:\n"
        b"    os.kill(os.getppid(), 9)\n    sys.exit(0)\nassert False, 'no way'\n",
    )
    result = await warm.exec((*UNITTEST, "test_kill"), limits=LIMITS, env=ENV)
    assert result.exit_code == 1 and "no way" in result.stderr
    assert not any(warm._warm.values())
    assert (await warm.exec(UNITTEST, limits=LIMITS, env=ENV)).exit_code == 1
