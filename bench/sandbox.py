"""Measures how long `true` takes: bare, in bubblewrap alone, and in the sandbox at each level.

    python bench/sandbox.py [ROUNDS]

The ways take turns, so that other load on the machine affects all of them alike. It prints medians
in milliseconds, with the difference from the bare process and the ratio to it; the goal at level
full is 15 ms.

Between two commands a model thinks, and the next sandbox is prepared in the meantime; here each
command starts 30 ms after the previous one. `at once` is the other extreme: no pauses at all.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time

from agentcli.environments.host import HostEnvironment
from agentcli.errors import SandboxError
from agentcli.sandbox import bwrap
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import Limits

_ALONE = ("--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "--dev", "/dev", "true")
_LEVELS: tuple[Level, ...] = ("none", "reduced", "full")
_PAUSE_S = 0.03
BARE = "bare process"


async def measure(rounds: int, folder: str) -> dict[str, list[float]]:
    """The seconds of each round, by way."""
    environments: dict[str, HostEnvironment] = {}
    times: dict[str, list[float]] = {}
    for level in _LEVELS:
        environment = HostEnvironment(folder, wanted=level)
        began = time.perf_counter()
        try:
            await environment.start()
        except SandboxError as error:
            print(f"{level}: {error.line()}")
            await environment.aclose()
            continue
        times[f"start at level {level}"] = [time.perf_counter() - began]
        environments[f"level {level}"] = environment
        await environment.write("file", b"x" * 1000)
    program = bwrap.program()
    for _ in range(rounds):
        _time(times, BARE, ["true"])
        if program is not None:
            _time(times, "bubblewrap alone", [program, *_ALONE])
        for name, environment in environments.items():
            await asyncio.sleep(_PAUSE_S)
            times.setdefault(name, []).append(await _true(environment))
        for name, environment in environments.items():
            began = time.perf_counter()
            await environment.read("file")
            times.setdefault(f"read a file, {name}", []).append(time.perf_counter() - began)
    for name, environment in environments.items():
        for _ in range(rounds):
            times.setdefault(f"{name}, at once", []).append(await _true(environment))
    for environment in environments.values():
        await environment.aclose()
    return times


async def _true(environment: HostEnvironment) -> float:
    began = time.perf_counter()
    result = await environment.exec(["true"], limits=Limits())
    assert result.success, result
    return time.perf_counter() - began


def _time(times: dict[str, list[float]], name: str, argv: list[str]) -> None:
    began = time.perf_counter()
    subprocess.run(argv, check=True)
    times.setdefault(name, []).append(time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        times = asyncio.run(measure(rounds, folder))
    bare = statistics.median(times[BARE])
    print(f"{'':28}   median     best     over bare   ratio     load {os.getloadavg()[0]:.1f}")
    for name, values in times.items():
        median, best = statistics.median(values), min(values)
        line = f"{name:28} {median * 1e3:8.2f} {best * 1e3:8.2f} ms"
        if not name.startswith(("start", "read")):
            line += f" {(median - bare) * 1e3:8.2f} ms {median / bare:7.1f}"
        print(line)


if __name__ == "__main__":
    main()
