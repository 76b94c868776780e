"""Copies as overlay mounts: what they contain, how changes are read, how they end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentcli.environments import tree
from agentcli.environments.copies import CopiedWorkspace, in_place
from agentcli.errors import EnvironmentOpError, SandboxError
from agentcli.sandbox.confine import Level
from agentcli.sandbox.layered import LayerSupervisor
from agentcli.sandbox.limits import Limits
from tests.environments.test_copies import content, in_place_or_skip

FILES = {
    "src/a.py": "one\ntwo\nthree\n",
    "src/b.py": "b\n",
    "gone/deep/x": "x\n",
    "gone/y": "y\n",
    "folder/in": "in\n",
    "moved/m": "m\n",
    "again/old": "old\n",
    "run.sh": "#!/bin/sh\n",
    ".gitignore": "node_modules/\n",
    "node_modules/x": "x\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that counts as too large to copy; its name is hard to quote in mount options."""
    monkeypatch.setattr(tree, "MOST_FILES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "a,b:c\\d"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "link").symlink_to("run.sh")
    (root / "big").write_bytes(b"\0" * (8 << 20) + b"end")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    base = tmp_path / "probe"
    base.mkdir()
    supervisor = LayerSupervisor(str(root), str(base))
    try:
        supervisor.start()
    except SandboxError as error:
        pytest.skip(error.line())
    finally:
        supervisor.close()
    return root


async def shell(copy: CopiedWorkspace, script: str) -> str:
    result = await copy.exec(("/bin/sh", "-c", script), limits=Limits())
    return result.stdout + result.stderr


@pytest.mark.parametrize("level", ["full", "reduced"])
async def test_effect_and_commit(level: Level, project: Path, tmp_path: Path) -> None:
    before = content(project)
    script = r"""
        sed -i s/two/TWO/ src/a.py && rm src/b.py; rm -r gone
        rm -r folder && echo file > folder; rm run.sh && mkdir run.sh && echo x > run.sh/x
        mv moved renamed; rm -r again && mkdir again && echo new > again/new
        ln -sfn src link; printf '\1' | dd of=big bs=1 seek=9 conv=notrunc status=none
        chmod 700 src; mkfifo pipe; mkdir -p new/deep; touch node_modules/x .git/x; touch .gitignore
        echo made > made && rm made; mknod dev c 0 0; mkdir build && echo o > build/o
        ls -A | tr '\n' ' '; echo 'evil' > .envrc
    """
    async with in_place_or_skip(project, level) as copy:
        said = await shell(copy, script)
        assert content(project) == before, "nothing has happened yet"
        assert said.count("Read-only file system") == 2 and "mknod: dev" in said
        assert "again big build folder link new" in said and "gone" not in said
        assert ".envrc: removed" in said, "what the host would obey is looked for here too"
        assert await copy.read("src/a.py") == b"one\nTWO\nthree\n"
        await copy.write("src/a.py", b"one\nTWO\nthree\nfour\n")
        assert "four" in await shell(copy, "cat src/a.py")
        effect = await copy.effect()
        assert (await copy.commit()) == effect
        assert (await copy.effect()).paths == ()
    assert effect.paths == (
        *("again/new", "again/old", "big", "build", "build/o", "folder", "folder/in"),
        *("gone", "gone/deep", "gone/deep/x", "gone/y", "link", "moved", "moved/m"),
        *("new", "new/deep", "renamed", "renamed/m", "run.sh", "run.sh/x"),
        *("src", "src/a.py", "src/b.py"),
    )
    for line in (
        "Binary files a/big and b/big differ\n",
        "deleted folder gone\n",
        "+TWO\n three\n+four\n",
        "folder src: old mode 755, new mode 700\n",
        "not applied, as it is not a file: pipe\n",
    ):
        assert line in effect.diff
    after = content(project)
    assert sorted(after) == [
        *(".git", ".gitignore", "again", "again/new", "big", "build", "build/o", "folder", "link"),
        *("new", "new/deep", "node_modules", "node_modules/x", "renamed", "renamed/m"),
        *("run.sh", "run.sh/x", "src", "src/a.py"),
    ]
    assert (project / "folder").read_text() == "file\n" and os.readlink(project / "link") == "src"
    assert (project / "big").read_bytes() == b"\0" * 9 + b"\1" + b"\0" * ((8 << 20) - 10) + b"end"
    assert stat.S_IMODE((project / "src").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "cache/agentcli/copies") == []


async def test_the_workspace_must_not_have_changed(project: Path) -> None:
    async with in_place(project) as copy:
        await shell(copy, "echo copy > src/a.py; echo copy > src/new; rm -r gone")
        (project / "src/b.py").write_text("other changes stay\n")
        (project / "gone/deep/x").write_text("mine\n")
        mine = content(project)
        with pytest.raises(EnvironmentOpError, match="gone/deep/x") as caught:
            await copy.commit()
        assert caught.value.code == "CONFLICT" and content(project) == mine
        (project / "gone/deep/x").unlink()
        with pytest.raises(EnvironmentOpError, match="gone/deep/x"):
            await copy.commit()
    assert (project / "src/b.py").read_text() == "other changes stay\n"


_KILLED = """
import asyncio, os, sys
from agentcli.environments import tree
from agentcli.environments.copies import in_place

async def main(root):
    tree.MOST_FILES = 1
    async with in_place(root) as copy:
        await copy.exec(("/bin/sh", "-c", "echo copy > src/a.py; rm -r gone"))
        print(copy._supervisor.pid, copy._made.kept, flush=True)
        await copy.exec(("sleep", "600"))

asyncio.run(main(sys.argv[1]))
"""


async def test_kill_9(project: Path) -> None:
    """The mount and the processes end with agentcli; the next copy removes the leftovers."""
    before = content(project)
    argv = [sys.executable, "-c", _KILLED, str(project)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, kept = process.stdout.readline().rstrip("\n").split(" ", 1)
        supervisor = psutil.Process(int(pid))
        family = [supervisor, *supervisor.children(recursive=True)]
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive and content(project) == before and os.path.isdir(kept)
    async with in_place(project) as copy:
        assert not os.path.exists(kept)
        assert (await copy.effect()).paths == ()


async def test_its_supervisor_is_not_restarted(project: Path) -> None:
    """A new supervisor would see only part of the previous one's work, or none."""
    async with in_place(project) as copy:
        pid = copy._supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((SandboxError, EnvironmentOpError)):
            await copy.exec(("true",))
        with pytest.raises(SandboxError, match="gone with its supervisor"):
            await copy.exec(("true",))


def test_no_mount(tmp_path: Path) -> None:
    """The error contains the kernel's reason."""
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(SandboxError, match="an overlay cannot be mounted: No such file"):
        LayerSupervisor(str(tmp_path / "missing"), str(base)).start()
