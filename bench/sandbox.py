"""How long `true` takes: bare, in bubblewrap alone, and in the sandbox at each level.

    python bench/sandbox.py [ROUNDS]

The ways take turns, so that a busy machine disturbs all of them alike. Medians in milliseconds.
"""

from __future__ import annotations

import asyncio
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


async def measure(rounds: int, folder: str) -> dict[str, list[float]]:
    """Seconds of each round, by way."""
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
        _time(times, "bare process", ["true"])
        if program is not None:
            _time(times, "bubblewrap alone", [program, *_ALONE])
        for name, environment in environments.items():
            began = time.perf_counter()
            result = await environment.exec(["true"], limits=Limits())
            times.setdefault(name, []).append(time.perf_counter() - began)
            assert result.success, result
            began = time.perf_counter()
            await environment.read("file")
            times.setdefault(f"read a file, {name}", []).append(time.perf_counter() - began)
    for environment in environments.values():
        await environment.aclose()
    return times


def _time(times: dict[str, list[float]], name: str, argv: list[str]) -> None:
    began = time.perf_counter()
    subprocess.run(argv, check=True)
    times.setdefault(name, []).append(time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        times = asyncio.run(measure(rounds, folder))
    for name, values in times.items():
        print(
            f"{name:28} {statistics.median(values) * 1000:8.2f} ms"
            f"   (best {min(values) * 1000:.2f})"
        )


if __name__ == "__main__":
    main()
