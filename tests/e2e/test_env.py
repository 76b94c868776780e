"""``agentcli run --env``: the same task on another machine and in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.environments.far import IMAGE, Missing, container_cli, far_end
from tests.running import Cli, repository
from tests.server import Reply

EDIT = {"path": "notes.txt", "old": "old", "new": "new"}


def script(command: str) -> list[Reply]:
    return [
        Reply(calls=[("search_replace", EDIT)]),
        Reply(calls=[("shell", {"command": command})]),
        Reply(text="Done."),
    ]


def test_on_another_machine(cli: Cli, serve: Serve, workspace: Path, tmp_path: Path) -> None:
    there = repository(tmp_path / "there", {"notes.txt": "old\n"})
    (tmp_path / "keys").mkdir()
    try:
        with far_end(tmp_path / "keys") as far:
            cli.extra = {"AGENTCLI_SSH_CONFIG": str(far.config)}
            cli.server = serve(script("echo $SSH_CONNECTION; cat notes.txt")).url
            line = ("run", "-p", "x", "--model", "openai:scripted", "--check", "grep new notes.txt")
            ended = cli.run(*line, "--env", f"ssh:far:{there}", cwd=workspace)
            assert ended.code == 0, ended.err
            assert "127.0.0.1" in ended.err and "check passed" in ended.err
            assert (there / "notes.txt").read_text() == "new\n"
            assert list(workspace.iterdir()) == []
            cli.server = serve([Reply(text="Done.")]).url
            ended = cli.run(*line, "--env", f"ssh:far:{there}/nowhere", cwd=workspace)
            assert ended.code == 4 and "nowhere: no such folder" in ended.err
    except Missing as reason:
        pytest.skip(str(reason))


def test_in_a_container(cli: Cli, serve: Serve, workspace: Path, tmp_path: Path) -> None:
    repository(workspace, {"notes.txt": "old\n"})
    (workspace / "TASK.md").write_text(f"---\nenv: docker:{IMAGE}\n---\nDo it.\n")
    (tmp_path / "images").mkdir()
    try:
        with container_cli(tmp_path / "images") as program:
            # Finding the image takes options here, so a script on the PATH adds them to "docker".
            (tmp_path / "bin").mkdir()
            shim = tmp_path / "bin" / "docker"
            shim.write_text(f'#!/bin/sh\nexec {" ".join(program)} "$@"\n')
            shim.chmod(0o755)
            cli.extra = {"PATH": f"{shim.parent}:{cli.env['PATH']}"}
            cli.server = serve(script("ls /; cat notes.txt")).url
            ended = cli.run("run", "TASK.md", "--model", "openai:scripted", cwd=workspace)
            assert ended.code == 0, ended.err
            assert "notes.txt" in ended.err and f"docker:{IMAGE}" in ended.err
            assert (workspace / "notes.txt").read_text() == "new\n"
            ended = cli.run("run", "-p", "x", "--env", "docker:missing", cwd=workspace)
            assert ended.code == 4 and "pull missing" in ended.err, ended.err
    except Missing as reason:
        pytest.skip(str(reason))


def test_an_invalid_name(cli: Cli, workspace: Path) -> None:
    ended = cli.run("run", "-p", "x", "--env", "dock", cwd=workspace)
    assert ended.code == 2 and "--env" in ended.err
