"""A workspace confined at each level."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcli.errors import SandboxError
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level, Sandbox, prepare
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import ExecResult, Supervisor

LEVELS = ("full", "reduced")
LANDLOCK_ONLY = "landlock only"
"""The reduced level on a kernel without user namespaces."""

Confine = Callable[..., Awaitable["Confined"]]


class Confined:
    """A workspace in a sandbox, with short ways to run a command there."""

    def __init__(self, supervisor: Supervisor, sandbox: Sandbox) -> None:
        self.supervisor = supervisor
        self.sandbox = sandbox
        self.root = Path(sandbox.policy.workspace)

    async def run(self, *argv: str, time_s: float = 300, **more: Any) -> ExecResult:
        limits = more.pop("limits", Limits(time_s=time_s))
        said = (
            None if more.keys() - {"cwd", "env"} else self.sandbox.line(argv, limits=limits, **more)
        )
        if said is not None:  # as the tools run commands
            return await self.supervisor.spawn_line(*said, limits).wait()
        return await self.supervisor.exec(self.sandbox.launch(argv, limits=limits, **more))

    async def shell(self, script: str, **more: Any) -> ExecResult:
        return await self.run("/bin/sh", "-c", script, **more)

    async def python(self, script: str, **more: Any) -> ExecResult:
        return await self.run("python3", "-c", script, **more)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


_MISSING: dict[str, str | None] = {}


async def _tried(supervisor: Supervisor, policy: policies.Policy, level: str) -> Sandbox:
    """Make a sandbox at a level; skip if the level is unavailable, probed once per process."""
    wanted: Level = "reduced" if level in ("reduced", LANDLOCK_ONLY) else "full"
    if level not in _MISSING:
        try:
            probed = await prepare(supervisor, policy, wanted)
            probed.close()
            missing = "no namespaces" if level == "reduced" and not probed.own_namespaces else None
        except SandboxError as error:
            missing = error.line()
        _MISSING[level] = missing
    if (missing := _MISSING[level]) is not None:
        pytest.skip(missing)
    return Sandbox(policy, wanted, own_namespaces=level == "reduced")


@pytest.fixture
def confine(supervisor: Supervisor, workspace: Path) -> Iterator[Confine]:
    """Makes the workspace a git repository and confines it; skips an unavailable level."""
    made: list[Sandbox] = []

    async def start(level: str, **options: Any) -> Confined:
        if not (workspace / ".git").exists():
            subprocess.run(["git", "init", "-q", str(workspace)], check=True)
        sandbox = await _tried(supervisor, policies.build(str(workspace), **options), level)
        made.append(sandbox)
        return Confined(supervisor, sandbox)

    yield start
    for sandbox in made:
        sandbox.close()
