"""Layer E: files that the host's programs would obey are restored, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcli.environments.host import HostEnvironment
from agentcli.errors import EnvironmentOpError, SandboxError
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.restore import Guard, present


class Place:
    """A guarded workspace with its quarantine folder."""

    def __init__(self, root: Path, environment: HostEnvironment, home: Path) -> None:
        self.root = root
        self.environment = environment
        self.home = home

    async def run(self, script: str) -> tuple[str, ...]:
        result = await self.environment.exec(["sh", "-c", script], limits=Limits(time_s=100))
        for line in result.restored:
            assert f"[agentcli: {line}]" in result.stderr
        return result.restored

    def kept(self) -> str:
        folder = self.home / ".local/share/agentcli/quarantine"
        return "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(params=["full", "reduced", "none"])
async def place(
    request: pytest.FixtureRequest, workspace: Path, tmp_path: Path
) -> AsyncIterator[Place]:
    wanted: Level = request.param
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "init", "-q", workspace], check=True)
    (workspace / ".vscode").mkdir()
    (workspace / ".vscode/settings.json").write_text("{}")
    policy = policies.build(str(workspace), host_env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
    environment = HostEnvironment(workspace, wanted=wanted, policy=policy)
    try:
        await environment.start()
    except SandboxError as error:
        await environment.aclose()
        pytest.skip(error.line())
    yield Place(workspace, environment, home)
    await environment.aclose()


@pytest.mark.parametrize(
    "path",
    [
        *(".git/hooks/post-checkout", ".git/commondir", ".git/config.worktree", ".envrc"),
        *(".mcp.json", ".idea/workspace.xml", ".agentcli/config.toml", ".vscode/tasks.json"),
    ],
)
async def test_what_was_missing_is_gone_again(path: str, place: Place) -> None:
    await place.run(f"mkdir -p $(dirname {path}); echo evil > {path}")
    assert not (place.root / path).exists()


async def test_nothing_is_destroyed(place: Place) -> None:
    restored = await place.run("echo precious > .envrc; mkdir .idea; echo dear > .idea/x")
    assert [line.partition(":")[0] for line in restored] == [".envrc", ".idea"]
    assert "precious" in place.kept() and "dear" in place.kept()


async def test_what_was_there_is_as_before(place: Place) -> None:
    config = (place.root / ".git/config").read_bytes()
    await place.run(
        "echo '[core] pager = evil' >> .git/config; echo evil > .vscode/settings.json; "
        "chmod 777 .vscode/settings.json; rm -r .vscode .git/hooks"
    )
    assert (place.root / ".git/config").read_bytes() == config
    assert (place.root / ".vscode/settings.json").read_text() == "{}"
    assert (place.root / ".git/hooks").is_dir()
    assert subprocess.run(["git", "-C", place.root, "status"], check=True)


async def test_the_repository_cannot_be_exchanged(place: Place) -> None:
    await place.run("mv .git elsewhere; mkdir evil; ln -s evil .git")
    assert (place.root / ".git").is_dir() and not (place.root / ".git").is_symlink()
    assert (place.root / ".git/HEAD").exists()
    await place.run("mv .git elsewhere; echo 'gitdir: evil' > .git")
    assert (place.root / ".git/HEAD").exists()


async def test_a_planted_bare_repository(place: Place) -> None:
    script = "mkdir -p sub objects refs; echo x > HEAD; git init -q --bare sub/bare"
    restored = await place.run(script)
    assert not (place.root / "HEAD").exists() and not (place.root / "sub/bare/HEAD").exists()
    assert len(restored) == 2


async def test_ordinary_work_is_left_alone(place: Place) -> None:
    script = "echo x > f; git add f; git -c user.name=a -c user.email=a@b commit -qm first; rm f"
    assert await place.run(script) == ()


async def test_a_new_repository_stays_but_not_its_hooks(workspace: Path, tmp_path: Path) -> None:
    guard = Guard(str(workspace), str(tmp_path / "quarantine"))
    guard.begin()
    subprocess.run(["git", "init", "-q", workspace], check=True)
    subprocess.run(["git", "-C", workspace, "config", "user.name", "Ada"], check=True)
    (workspace / ".git/hooks/pre-commit").write_text("evil")
    said = guard.end(read_only=True)
    assert len(said) == 1 and said[0].startswith(".git/hooks/pre-commit: removed")
    assert "Ada" in (workspace / ".git/config").read_text()


@pytest.mark.parametrize(
    "line", ["[core]\n\tfsmonitor = evil", "[include]\n\tpath = x", "[alias]\n\tst = !evil"]
)
def test_a_new_configuration_that_names_programs(
    line: str, workspace: Path, tmp_path: Path
) -> None:
    guard = Guard(str(workspace), str(tmp_path / "quarantine"))
    guard.begin()
    subprocess.run(["git", "init", "-q", workspace], check=True)
    with (workspace / ".git/config").open("a") as file:
        file.write(line + "\n")
    assert guard.end(read_only=True)
    assert not (workspace / ".git/config").exists()


async def test_file_tools_may_change_what_commands_may_not(place: Place) -> None:
    await place.environment.write(".vscode/settings.json", b'{"a": 1}')
    await place.environment.write(".envrc", b"export A=1")
    assert await place.run("true") == ()
    assert (place.root / ".vscode/settings.json").read_text() == '{"a": 1}'
    assert (place.root / ".envrc").read_text() == "export A=1"


async def test_what_file_tools_remove_while_a_command_runs_stays_gone(place: Place) -> None:
    """A file that the command puts in its place does not stay either."""
    venv = place.root / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    removed = [".vscode/settings.json", ".venv/bin/activate", "lib/.envrc", ".gdbinit"]
    for name in removed:
        (place.root / name).parent.mkdir(exist_ok=True)
        (place.root / name).write_text("mine")
    os.mkfifo(place.root / "go")
    os.mkfifo(place.root / "runs")
    script = "echo > runs; read x < go; echo evil > .gdbinit; echo fine > .venv/x"
    command = asyncio.create_task(place.run(script))
    await asyncio.to_thread((place.root / "runs").read_text)
    for name in removed:
        await place.environment.remove(name)
    await place.environment.write(".venv/new", b"mine")
    await asyncio.to_thread((place.root / "go").write_text, "\n")
    assert [line.partition(":")[0] for line in await command] == [".gdbinit"]
    assert not [name for name in removed if (place.root / name).exists()]
    assert (venv / "new").exists() and (venv / "x").exists()


async def test_file_tools_cannot_write_hooks(place: Place) -> None:
    if not place.environment._ready().keeps_read_only:
        pytest.skip("only a mount namespace keeps a part of the workspace read-only")
    with pytest.raises(EnvironmentOpError):
        await place.environment.write(".git/hooks/pre-commit", b"evil")


async def test_a_virtual_environment_starts_as_before(place: Place) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", place.root / ".venv"], check=True
    )
    venv = place.root / ".venv"
    (site,) = venv.glob("lib/python3*/site-packages")
    config = (venv / "pyvenv.cfg").read_text()
    restored = await place.run(
        "cd .venv; rm bin/python; echo evil > bin/python; chmod +x bin/python; "
        "echo evil >> bin/activate; echo home=/evil > pyvenv.cfg; cp bin/python bin/git; "
        "cd lib/python3*/site-packages; echo evil > sitecustomize.py; echo fine > package.py; "
        "echo import evil > evil.pth; mkdir usercustomize; echo evil > usercustomize/__init__.py"
    )
    assert len(restored) == 7
    assert subprocess.run([venv / "bin/python", "-c", ""]).returncode == 0
    assert "evil" not in (venv / "bin/activate").read_text()
    assert (venv / "pyvenv.cfg").read_text() == config
    assert sorted(path.name for path in site.iterdir()) == ["package.py"]
    assert "evil" in place.kept()


async def test_what_an_installer_records_may_come_and_go(place: Place) -> None:
    venv = place.root / ".venv"
    site = venv / "lib/python3.99/site-packages"
    for folder in (venv / "bin", site / "tool-1.dist-info"):
        folder.mkdir(parents=True)
    for name in ("pyvenv.cfg", "bin/old", "bin/kept"):
        (venv / name).write_text("old")
    install = """
import base64, hashlib
def record(path, data):
    open(path, "wb").write(data)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    print(path, f"sha256={digest}", len(data), sep=",", file=open("tool-1.dist-info/RECORD", "a"))
record("../../../bin/tool", b"new")
record("../../../bin/kept", b"new")
record("tool.pth", b"import tool")
"""
    commands = (
        f"cd {site} && chmod 755 ../../../bin/* && rm ../../../bin/old && python3 -c '{install}'"
    )
    assert await place.run(commands) == ()
    assert sorted(path.name for path in (venv / "bin").iterdir()) == ["kept", "tool"]
    assert [line.partition(":")[0] for line in await place.run("echo evil >> .venv/bin/tool")] == [
        ".venv/bin/tool"
    ]
    assert (venv / "bin/tool").read_text() == "new"


async def test_a_virtual_environment_can_be_made_and_removed(place: Place) -> None:
    make = f"{os.path.realpath(sys.executable)} -m venv --without-pip .venv"
    for script in (make, f"rm -r .venv; {make}", "rm -r .venv"):
        assert await place.run(script) == ()
    assert not (place.root / ".venv").exists()


async def test_start_files_where_home_is_the_workspace(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("mine")
    policy = policies.build(
        str(tmp_path), host_env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    )
    environment = HostEnvironment(tmp_path, policy=policy)
    try:
        try:
            await environment.start(worker=False)
        except SandboxError as error:
            pytest.skip(error.line())
        script = (
            "echo evil >> .bashrc; echo evil > .profile; mkdir -p .local/bin; echo > .local/bin/ls"
        )
        await environment.exec(["sh", "-c", script], limits=Limits(time_s=100))
    finally:
        await environment.aclose()
    assert (tmp_path / ".bashrc").read_text() == "mine"
    assert not (tmp_path / ".profile").exists() and not (tmp_path / ".local/bin/ls").exists()


def test_only_what_may_be_there_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    paths = [".git/config", ".vscode", ".vscode/settings.json", ".VSCode"]
    assert present(str(tmp_path), paths) == paths[1:]
    assert present(str(tmp_path / "nowhere"), paths) == paths


async def test_a_link_in_place_of_the_hooks_is_removed(place: Place) -> None:
    (place.root / "evil").mkdir()
    (place.root / "evil").chmod(0o750)
    (place.root / "evil/pre-commit").write_text("evil")
    await place.run("rm -rf .git/hooks; ln -s ../evil .git/hooks")
    hooks = place.root / ".git/hooks"
    assert hooks.is_dir() and not hooks.is_symlink() and not (hooks / "pre-commit").exists()
    assert (place.root / "evil").stat().st_mode & 0o777 == 0o750


async def test_a_new_folder_is_not_taken_for_a_removed_repository(place: Place) -> None:
    await place.run("rm -rf .git; mkdir build; echo work > build/result")
    assert (place.root / "build/result").read_text() == "work\n"


async def test_a_working_tree_plants_nothing_in_its_repository(place: Place) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    git = ["git", *identity, "-C", str(place.root)]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    tree = place.root.parent / "tree"
    subprocess.run([*git, "worktree", "add", "-q", str(tree)], check=True)
    policy = policies.build(str(tree), host_env={"HOME": str(place.home), "PATH": "/usr/bin:/bin"})
    environment = HostEnvironment(tree, wanted="none", policy=policy)
    await environment.start()
    other = Place(tree, environment, place.home)
    folder = place.root / ".git"
    restored = await other.run(f"echo {tree}/evil > {folder}/commondir")
    assert len(restored) == 1 and restored[0].startswith(f"{folder}/commondir: removed")
    assert not (folder / "commondir").exists()
    assert await other.run("git commit -q --allow-empty -m y") == ()
    await environment.aclose()
