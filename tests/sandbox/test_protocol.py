"""The protocol between agentcli, its supervisor and the wardens, and its light imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agentcli
from agentcli.sandbox import protocol

ROOT = Path(agentcli.__file__).parents[1]
SLOW = {"contextvars", "enum", "json", "re", "signal", "socket", "subprocess", "typing"}


def test_an_object_is_whole_with_its_last_byte() -> None:
    value = {"error": "one line\nand another\n", "line": b"\xff", "limits": {"time_s": 0.5}}
    packed = protocol.pack(value)
    for size in range(len(packed)):
        assert not protocol.is_whole(packed[:size]) and protocol.unpack(packed[:size]) is None
    assert protocol.is_whole(packed) and protocol.unpack(packed) == value


@pytest.mark.parametrize("module", ["sandbox.supervisor", "environments.worker"])
def test_starting_loads_no_slow_module(module: str) -> None:
    """Each of these modules would add some milliseconds to every start, twice."""
    program = (
        f"import sys; sys.path.append({str(ROOT)!r}); import agentcli.{module}; print(*sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert f"agentcli.{module}" in ended.stdout.split()
    assert not SLOW & set(ended.stdout.split())
