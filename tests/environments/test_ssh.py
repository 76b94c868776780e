"""Remote machines: what is not forwarded, what ends with the connection, and their names."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agentcli.environments.base import opened
from agentcli.environments.ssh import SshEnvironment, split_place
from agentcli.errors import CapabilityError, EnvironmentOpError
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import Supervisor
from tests.environments.far import FarEnd, survivors


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("box", ("box", "")),
        ("me@box:work dir", ("me@box", "work dir")),
        ("box:/srv/x:y", ("box", "/srv/x:y")),
        ("[::1]:/srv", ("::1", "/srv")),
        ("me@[fe80::1%eth0]", ("me@fe80::1%eth0", "")),
    ],
)
def test_names_of_places(place: str, expected: tuple[str, str]) -> None:
    assert split_place(place) == expected


@pytest.mark.parametrize("place", ["", ":x", "-oProxyCommand=x", "a b", "a;b", "$(x)", "a\nb"])
def test_invalid_names(place: str) -> None:
    with pytest.raises(CapabilityError):
        split_place(place)


async def test_nothing_is_forwarded_and_files_outside_are_refused(
    workspace: Path,
    tmp_path: Path,
    supervisor: Supervisor,
    far: FarEnd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setenv("SECRET_TOKEN", "x")
    (tmp_path / "outside").write_text("x")
    os.symlink(tmp_path / "outside", workspace / "link")
    async with opened(
        SshEnvironment("far", str(workspace), supervisor, config=str(far.config))
    ) as place:
        said = (await place.exec(("env",), limits=Limits())).stdout
        assert "SSH_CONNECTION=" in said
        assert "SSH_AUTH_SOCK" not in said and "SECRET" not in said
        for path in ("link", "../outside", str(tmp_path / "outside")):
            with pytest.raises(EnvironmentOpError, match="outside the workspace"):
                await place.read(path)


async def test_a_connection_that_breaks_ends_what_runs_there(
    workspace: Path, supervisor: Supervisor, far: FarEnd
) -> None:
    word = f"6{os.getpid()}"
    async with opened(
        SshEnvironment("far", str(workspace), supervisor, config=str(far.config))
    ) as place:
        begun = asyncio.Event()
        script = f"(setsid sleep {word} &) ; echo up; sleep {word}"
        task = asyncio.create_task(
            place.exec(("sh", "-c", script), limits=Limits(), on_output=lambda *_: begun.set())
        )
        await asyncio.wait_for(begun.wait(), 30)
        await place._processes[0].kill()  # type: ignore[attr-defined]
        result = await task
        assert result.exit_code is None and result.stdout == "up\n" and result.error
        assert survivors(word) == []
        again = await place.exec(("echo", "back"), limits=Limits())
        assert again.stdout == "back\n", "a connection of its own takes the master's place"
