"""Runs the attacks of ``attacks.py`` at each level; every one must fail."""

# ruff: noqa: E501  (one program per line)

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcli.sandbox.limits import MIB, Limits
from tests.running import running_with, some_seconds
from tests.sandbox.attacks import ATTACKS, SECRET
from tests.sandbox.conftest import LANDLOCK_ONLY, LEVELS, Confine, Confined

# Each attack runs in its own process and folder, and prints its outcome as a line of JSON.
DRIVER = """
import ctypes, glob, json, os, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
OUTSIDE, SECRET = os.environ['OUTSIDE'], os.environ['MARK'][::-1]
VICTIM, PORT, UDP = (int(os.environ[n]) for n in ('VICTIM', 'PORT', 'UDP'))
ABSTRACT, apart, WORKSPACE = os.environ['ABSTRACT'], os.environ['APART'] == '1', os.getcwd()
def leaked():
    os.write(report, b'LEAKED ')
def show(text):
    if SECRET in text: leaked()
def check(result):
    if result == -1: raise OSError(ctypes.get_errno(), 'refused')
    return result
for name, source in json.load(sys.stdin).items():
    reader, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.mkdir(name)
            os.chdir(name)
            exec(source)
        except BaseException as error:
            os.write(report, type(error).__name__.encode())
        os._exit(0)
    os.close(report)
    said = b''
    while part := os.read(reader, 1000):
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    print(json.dumps([name, said.decode()]), flush=True)
"""


def _echo(udp: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, sender = udp.recvfrom(100)
            udp.sendto(data, sender)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A secret, a process that knows it, and services, all outside the workspace."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_rsa").write_text(SECRET)
    (home / ".bashrc").write_text("")
    for name in (".aws/credentials", ".config/agentcli/config.toml"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(SECRET)
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    temporary = tempfile.NamedTemporaryFile(prefix="agentcli-secret")  # noqa: SIM115
    victim = subprocess.Popen(["sleep", "600"], cwd=folder, env={"API_KEY": SECRET})
    sockets: list[Any] = []
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(udp,), daemon=True).start()
    stream, datagram, abstract = (
        socket.socket(socket.AF_UNIX, kind)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    sockets += [temporary, tcp, udp, stream, datagram, abstract]
    here = os.getcwd()
    os.chdir(folder)  # socket names have at most 107 bytes
    stream.bind("socket")
    datagram.bind("datagram")
    os.chdir(here)
    stream.listen()
    name = f"agentcli-{os.getpid()}"
    abstract.bind("\0" + name)
    abstract.listen()
    yield {
        "OUTSIDE": str(folder),
        "REAL_HOME": str(home),
        "VICTIM": str(victim.pid),
        "PORT": str(tcp.getsockname()[1]),
        "UDP": str(udp.getsockname()[1]),
        "ABSTRACT": name,
        "MARK": SECRET[::-1],
    }
    victim.kill()
    victim.wait()
    for each in sockets:
        each.close()


@pytest.fixture(params=(*LEVELS, LANDLOCK_ONLY))
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def confined(confine: Confine, level: str, outside: dict[str, str]) -> Confined:
    env = {**os.environ, "HOME": outside["REAL_HOME"], "OPENAI_API_KEY": SECRET}
    return await confine(level, host_env=env)


async def tried(
    attacks: dict[str, str], confined: Confined, outside: dict[str, str]
) -> dict[str, str]:
    """The outcome of each attack, all tried in one command."""
    result = await confined.run(
        *(os.path.realpath(sys.executable), "-S", "-c", DRIVER),
        env={**outside, "APART": str(int(confined.sandbox.keeps_read_only))},
        stdin=json.dumps(attacks).encode(),
        time_s=100,
    )
    outcomes: dict[str, str] = dict(json.loads(line) for line in result.stdout.splitlines())
    assert outcomes.keys() == attacks.keys(), result
    return outcomes


@pytest.mark.parametrize("kind", ATTACKS)
async def test_attacks(kind: str, confined: Confined, outside: dict[str, str]) -> None:
    attacks = ATTACKS[kind]
    outcomes = await tried(attacks, confined, outside)
    assert [name for name, said in outcomes.items() if "LEAKED" in said] == []
    broken = ("SyntaxError", "NameError", "AttributeError", "TypeError")
    assert [name for name, said in outcomes.items() if said in broken] == []
    assert (Path(outside["OUTSIDE"]) / "secret").read_text() == SECRET
    assert not (Path(outside["OUTSIDE"]) / "new").exists()
    assert not (Path(outside["OUTSIDE"]).parent / "new").exists()
    assert (Path(outside["REAL_HOME"]) / ".bashrc").read_text() == ""


async def test_keys_in_the_environment(confined: Confined) -> None:
    assert SECRET not in (await confined.run("env")).stdout


@pytest.mark.parametrize("where", LEVELS)
async def test_git_configuration_cannot_be_replaced(where: str, confine: Confine) -> None:
    confined = await confine(where)
    for attack in (
        "mv .git gone",
        "rm -rf .git",
        "echo '[core]' >> .git/config",
        "git config core.pager evil",
        "git config core.fsmonitor evil",
        "echo evil > .git/hooks/pre-commit",
        "mv .git/hooks .git/old && mkdir .git/hooks",
        "mkdir .git2 && mv .git2 .git",
    ):
        await confined.shell(attack)
    config = (confined.root / ".git" / "config").read_text()
    assert "evil" not in config and config.count("[core]") == 1
    assert not (confined.root / ".git" / "hooks" / "pre-commit").exists()


@pytest.mark.parametrize("level", LEVELS)
async def test_a_linked_worktree_cannot_be_led_elsewhere(
    level: str, confine: Confine, workspace: Path, tmp_path: Path
) -> None:
    main = tmp_path / "main"
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty"]
    subprocess.run(["git", "init", "-q", main], check=True)
    subprocess.run(["git", "-C", main, *commit, "-m", "x"], check=True)
    subprocess.run(["git", "-C", main, "worktree", "add", "-q", workspace], check=True)
    place = await confine(level)
    assert (await place.shell("git status")).success
    await place.shell(
        "cd $(git rev-parse --git-dir) && for name in commondir gitdir; do echo evil > $name; done; "
        "cd .. && mv repo old; cd .. && mv worktrees old"
    )
    assert subprocess.run(["git", "-C", workspace, "status"], capture_output=True).returncode == 0


async def test_bombs(confined: Confined) -> None:
    memory = "x = []\nwhile True: x.append(bytearray(10**7))"
    result = await confined.python(memory, limits=Limits(time_s=100, memory_bytes=200 * MIB))
    assert result.memory_exceeded or "MemoryError" in result.stderr
    shared = "import mmap\nx = mmap.mmap(-1, 10**9)\nfor i in range(0, 10**9, 4096): x[i] = 1"
    result = await confined.python(shared, limits=Limits(time_s=100, memory_bytes=200 * MIB))
    assert not result.success
    files = "import os\nf = []\nwhile True: f.append(os.open('/dev/null', 0))"
    assert not (await confined.python(files, limits=Limits(time_s=100, open_files=64))).success
    disk = "import os\nfor n in range(50):\n open(f'd{n}', 'wb').write(bytes(10**7))"
    result = await confined.python(disk, limits=Limits(time_s=100, file_bytes=MIB))
    assert not result.success


async def test_daemons_end_with_the_command(confined: Confined) -> None:
    seconds = some_seconds()
    await confined.shell(f"(setsid sleep {seconds}1 &) ; sleep {seconds}2 & sleep 0.1")
    assert not running_with(seconds)


@pytest.mark.parametrize("where", (*LEVELS, LANDLOCK_ONLY))
async def test_the_hosts_own_network_brings_none_of_its_other_sockets(
    where: str, confine: Confine, outside: dict[str, str]
) -> None:
    confined = await confine(where, network="full")
    names = ("abstract socket", "unix socket of the host", "unix datagram", "system bus", "docker")
    wanted = {name: ATTACKS["network"][name] for name in names}
    reachable = "socket.create_connection(('127.0.0.1', PORT), 2); leaked()"
    outcomes = await tried({**wanted, "host": reachable}, confined, outside)
    assert [name for name, said in outcomes.items() if "LEAKED" in said] == ["host"]
