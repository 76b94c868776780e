"""Sandboxes prepared ahead of time behave like ones made for the command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agentcli.environments.host import HostEnvironment
from agentcli.errors import SandboxError
from agentcli.sandbox import ahead
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import ExecResult, Supervisor
from agentcli.sandbox.supervisor import AHEAD
from tests.running import running_with, some_seconds, survivors

LIMITS = Limits(time_s=100)


class Place:
    """A workspace and its environment; ``wait`` returns once shells are ready for a command."""

    def __init__(self, root: Path, environment: HostEnvironment, supervisor: Supervisor) -> None:
        self.root = root
        self.environment = environment
        self.supervisor = supervisor

    async def run(self, *argv: str, cwd: str | None = None, **env: str) -> ExecResult:
        return await self.environment.exec(list(argv), limits=LIMITS, cwd=cwd, env=env)

    async def wait(self) -> list[int]:
        """The process ids of the waiting shells, once there are AHEAD of them."""
        deadline = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < deadline:
            if self.supervisor.pid and len(found := _waiting_below(self.supervisor.pid)) == AHEAD:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError("nothing was made ahead")


def _waiting_below(pid: int) -> list[int]:
    """The descendants of ``pid`` that are a bare shell."""
    found = []
    for child in _children(pid):
        # A process may end before it is read (ENOENT) or while it is read (ESRCH).
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/cmdline").read_bytes() == b"/bin/sh\0":
                found.append(child)
            else:
                found += _waiting_below(child)
    return found


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(params=["full", "reduced", "none"])
async def place(request: pytest.FixtureRequest, workspace: Path) -> AsyncIterator[Place]:
    wanted: Level = request.param
    subprocess.run(["git", "init", "-q", workspace], check=True)
    (workspace / "sub").mkdir()
    supervisor = Supervisor()
    environment = HostEnvironment(workspace, supervisor, wanted=wanted)
    try:
        await environment.start(worker=False)
        yield Place(workspace, environment, supervisor)
    except SandboxError as error:
        pytest.skip(error.line())
    finally:
        await environment.aclose()
        await supervisor.aclose()


async def test_a_command_is_the_same_as_in_a_sandbox_of_its_own(place: Place) -> None:
    script = (
        "env | sort; pwd; ls /proc/self/fd; umask; ulimit -a; cat; printf '<%s>' \"$@\"; exit 3"
    )
    words = ["/bin/sh", "-c", script, "name", "", "it's", "$HOME `x` \\ \n\t*", "\udcff", "é"]
    line = [*ahead.BASH_OR_SH, f"set -- \"it's\" '$HOME' \udcff \n{script}"]
    own = {"OWN": "a 'b'\n\"c\" $d"}
    for argv, (cwd, env) in itertools.product((words, line), ((None, {}), ("sub", own))):
        await place.run("true")
        await place.wait()
        said = await place.environment.exec(argv, limits=LIMITS, cwd=cwd, env=env)
        alone = await place.environment.exec(argv, limits=LIMITS, cwd=cwd, env=env, exact=True)
        assert said.exit_code == 3
        assert "OLDPWD" not in said.stdout and "<it's>" in said.stdout
        assert _settled(said.stdout) == _settled(alone.stdout)
        assert (said.exit_code, said.stderr) == (alone.exit_code, alone.stderr)


def _settled(text: str) -> list[str]:
    """Drop PWD, which only bubblewrap sets (at the full level), and the current task limits."""
    own = ("PWD=", "process ", "max user processes ")
    return [line for line in text.splitlines() if not line.startswith(own)]


async def test_the_waiting_sandbox_is_used_once_and_replaced(place: Place) -> None:
    await place.run("true")
    before = await place.wait()
    await place.run("touch", "/tmp/agentcli-mine")
    after = await place.wait()
    while len(set(before) & set(after)) == AHEAD:  # the used one still ends
        after = await place.wait()
    assert len(set(before) & set(after)) == AHEAD - 1
    theirs = await place.run("ls", "/tmp")
    if place.environment.level == "none":
        await place.run("rm", "/tmp/agentcli-mine")
    else:
        assert "agentcli-mine" not in theirs.stdout


async def test_what_appeared_meanwhile_is_protected(place: Place) -> None:
    if place.environment.level == "none":
        pytest.skip("nothing is read-only there")
    await place.run("true")
    await place.wait()
    (place.root / ".envrc").write_text("ours")
    result = await place.run("sh", "-c", "echo theirs > .envrc")
    assert result.exit_code != 0
    assert (place.root / ".envrc").read_text() == "ours"


@pytest.mark.parametrize(
    "change",
    [
        "cp config c && mv c config",
        "rm config && echo '[core]' > config",
        "ln config c && rm config && mv c config",  # same file, but no longer mounted over
        "mv hooks h && cp -r h hooks",
        "rm -r hooks && mkdir hooks",
    ],
)
async def test_what_was_replaced_meanwhile_is_protected(place: Place, change: str) -> None:
    if place.environment.level == "none":
        pytest.skip("nothing is read-only there")
    await place.run("true")
    await place.wait()
    subprocess.run(["sh", "-ec", change], cwd=place.root / ".git", check=True)
    before = (place.root / ".git/config").read_text()
    script = "echo '[core] pager = evil' >> .git/config; echo evil > .git/hooks/pre-commit"
    result = await place.run("sh", "-c", script)
    assert result.exit_code != 0
    assert result.stderr.count("ead-only file system") == 2
    assert (place.root / ".git/config").read_text() == before
    assert not (place.root / ".git/hooks/pre-commit").exists()


async def test_a_waiting_shell_that_was_killed_is_replaced(place: Place) -> None:
    await place.run("true")
    for shell in await place.wait():
        os.kill(shell, signal.SIGKILL)
    await asyncio.sleep(0.1)
    result = await place.run("echo", "here")
    assert (result.stdout, result.stderr) == ("here\n", "")


async def test_limits_count_from_the_command_on(place: Place) -> None:
    await place.run("true")
    await place.wait()
    await asyncio.sleep(0.6)
    started = time.monotonic()
    result = await place.run("true")
    assert result.duration_s <= time.monotonic() - started
    await place.wait()
    seconds = some_seconds()
    result = await place.environment.exec(["sleep", seconds], limits=Limits(time_s=0.5))
    assert result.timed_out and result.duration_s >= 0.5
    assert not running_with(seconds)


async def test_many_at_once(place: Place) -> None:
    await place.run("true")
    results = await asyncio.gather(*(place.run("echo", str(number)) for number in range(8)))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(8)]


async def test_nothing_waits_when_all_is_closed(place: Place) -> None:
    await place.run("true")
    shells = [psutil.Process(shell) for shell in await place.wait()]
    await place.supervisor.aclose()
    assert survivors(shells) == []


async def test_nothing_waits_when_the_supervisor_was_killed(place: Place) -> None:
    await place.run("true")
    shells = [psutil.Process(shell) for shell in await place.wait()]
    assert place.supervisor.pid is not None
    os.kill(place.supervisor.pid, signal.SIGKILL)
    assert survivors(shells) == []


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        (["-prog"], {}),
        (["true", "x" * ahead.LONGEST], {}),
        (["true"], {"1A": "x"}),
        (["true"], {"BASH_FUNC_x%%": "() { :; }"}),
        (["true"], {"PWD": "/"}),
        (["true"], {"UID": "7"}),
    ],
)
def test_commands_that_a_shell_cannot_pass_on(argv: list[str], env: dict[str, str]) -> None:
    assert ahead.line(argv, None, env) is None


async def test_a_long_command_and_an_odd_variable_run_all_the_same(place: Place) -> None:
    text = "x" * (ahead.LONGEST + 1)
    assert (await place.run("echo", text)).stdout == f"{text}\n"
    odd = {"odd-name": "value"}
    result = await place.environment.exec(["env"], limits=LIMITS, env=odd)
    assert "odd-name=value" in result.stdout


def test_sources_tell_what_changed(tmp_path: Path) -> None:
    file, folder, missing = (tmp_path / name for name in ("file", "folder", "missing"))
    file.write_text("one")
    folder.mkdir()
    sources = ahead.Sources()
    paths = [str(file), str(folder), str(missing)]
    first = sources.number(paths)
    (folder / "new").write_text("")  # the content of a folder is visible
    assert sources.number(paths) == first
    numbers = [first]
    file.write_text("two")
    numbers.append(sources.number(paths))
    missing.mkdir()
    numbers.append(sources.number(paths))
    missing.rmdir()
    numbers.append(sources.number(paths))
    folder.rename(tmp_path / "aside")
    folder.mkdir()
    numbers.append(sources.number(paths))
    assert numbers == [first, first + 1, first + 2, first + 3, first + 4]
    sources.close()
