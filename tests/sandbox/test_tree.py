"""Killing whole process trees."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentcli.sandbox import bwrap, tree

_ROOT = Path(__file__).parents[2]
_SCRIPT = """
import os, signal, subprocess, sys, time
sys.path.append(sys.argv[1])
from agentcli.sandbox import linux, tree
linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
main = subprocess.Popen(sys.argv[2:]).pid
while len(tree.descendants(os.getpid())) < 4:
    time.sleep(0.01)
tree.kill_namespace(main)
print(len(tree.descendants(os.getpid())))
tree.kill_descendants(os.getpid())
"""
_SLEEPERS = ("sh", "-c", "sleep 60 & sleep 60 & sleep 60 & wait")


def after_kill_namespace(*argv: str) -> int:
    """The number of processes left of a command."""
    command = [sys.executable, "-c", _SCRIPT, str(_ROOT), *argv]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def test_a_namespace_ends_as_one() -> None:
    program = bwrap.program()
    if program is None:
        pytest.skip("no bubblewrap")
    line = (program, "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/", *_SLEEPERS)
    if subprocess.run([*line[:-3], "true"], capture_output=True).returncode:
        pytest.skip("no namespaces")
    assert after_kill_namespace(*line) == 0


def test_without_a_namespace_nothing_is_killed_alone() -> None:
    assert after_kill_namespace(*_SLEEPERS) == 4


def test_files_that_only_processes_hold(tmp_path: Path) -> None:
    me = [os.getpid()]
    memory, disk = tree.memfd_bytes(me), tree.unnamed_bytes(me)
    in_memory = os.memfd_create("test")
    os.write(in_memory, bytes(3 << 20))
    with tempfile.TemporaryFile(dir=tmp_path) as on_disk:
        on_disk.write(bytes(5 << 20))
        on_disk.flush()
        os.fsync(on_disk.fileno())
        assert tree.memfd_bytes(me) - memory == 3 << 20
        assert tree.unnamed_bytes(me) - disk == 5 << 20
    os.close(in_memory)
    assert tree.shared_bytes() > 0


def test_a_search_ends_once_it_has_found_too_many() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & sleep 60 & echo; wait"],
                               stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline()
        everyone = tree.descendants(os.getpid())
        assert len(tree.descendants(os.getpid(), 0)) < len(everyone)
    finally:
        for pid in tree.descendants(process.pid):
            os.kill(pid, 9)
        process.communicate()
