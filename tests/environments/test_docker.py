"""The isolation of a container, tested with real commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentcli.environments.base import opened
from agentcli.environments.docker import DockerEnvironment
from agentcli.errors import CapabilityError
from agentcli.sandbox.limits import MIB, Limits
from agentcli.sandbox.process import Supervisor
from tests.environments.far import IMAGE

LOOK = """
id -u
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
echo net $(grep -c : /proc/net/dev)
touch /x /etc/x /bin/x 2>/dev/null && echo wrote
cat /etc/shadow 2>/dev/null && echo read
ls /tmp/seen 2>/dev/null; touch /tmp/seen && echo tmp
[ -e "$1" ] && echo outside
echo pids $(ls -d /proc/[0-9]* | wc -l)
"""


async def test_what_is_kept_from_a_command(
    workspace: Path, tmp_path: Path, supervisor: Supervisor, cli: tuple[str, ...]
) -> None:
    (tmp_path / "secret").touch()
    async with opened(DockerEnvironment(workspace, IMAGE, supervisor, program=cli)) as place:
        line = ("sh", "-c", LOOK, "sh", str(tmp_path / "secret"))
        for _ in range(2):  # the second sees nothing of the first
            said = (await place.exec(line, limits=Limits())).stdout
            uid, *rest, processes = said.splitlines()
            assert uid == str(os.getuid())
            nothing = "0" * 16
            assert [" ".join(line.split()) for line in rest] == [
                *(f"CapEff: {nothing}", f"CapBnd: {nothing}", "NoNewPrivs: 1", "net 1", "tmp")
            ], said
            assert int(processes.split()[1]) < 10
        hungry = "x=$(head -c 300000000 /dev/zero | tr '\\0' a); echo survived ${#x}"
        result = await place.exec(("sh", "-c", hungry), limits=Limits(memory_bytes=64 * MIB))
        assert "survived 300000000" not in result.stdout


async def test_what_the_host_would_obey_is_put_back(
    workspace: Path, supervisor: Supervisor, cli: tuple[str, ...]
) -> None:
    (workspace / ".git/hooks").mkdir(parents=True)
    (workspace / ".git/config").write_text("[core]\n")
    async with opened(DockerEnvironment(workspace, IMAGE, supervisor, program=cli)) as place:
        script = (
            "echo x > .git/hooks/pre-commit; echo x >> .git/config; echo x > .envrc; echo y > ok"
        )
        result = await place.exec(("sh", "-c", script), limits=Limits())
    assert result.stderr.count("Read-only file system") == 2
    assert len(result.restored) == 1 and ".envrc: removed" in result.stderr
    assert sorted(os.listdir(workspace)) == [".git", "ok"]
    assert (workspace / ".git/config").read_text() == "[core]\n"


async def test_an_image_that_is_not_here(
    workspace: Path, supervisor: Supervisor, cli: tuple[str, ...]
) -> None:
    for image, what in (("agentcli-no-such", "pull agentcli-no-such"), ("-v", "not the name")):
        environment = DockerEnvironment(workspace, image, supervisor, program=cli)
        with pytest.raises(CapabilityError) as caught:
            await environment.start()
        assert what in caught.value.line()
        await environment.aclose()
