"""Copies of a workspace: what they contain, what changed there, and bringing it back."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from unidiff.patch import PatchSet

from agentcli.environments import effects, tree
from agentcli.environments.copies import CopiedWorkspace, copied, in_place
from agentcli.errors import EnvironmentOpError, SandboxError
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import Limits


@pytest.fixture
def project(workspace: Path) -> Path:
    """A repository with an ignored folder, a link, an executable and binary data."""
    for name, content in {
        "src/a.py": "one\ntwo\nthree\n",
        "src/b.py": "b\n",
        "run.sh": "#!/bin/sh\n",
        ".gitignore": "node_modules/\n*.log\n",
        "node_modules/x": "x\n",
        "old.log": "log\n",
    }.items():
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text(content)
    (workspace / "data.bin").write_bytes(b"\0\1")
    (workspace / "link").symlink_to("run.sh")
    subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    return workspace


def content(root: Path) -> dict[str, tuple[int, bytes]]:
    """All files with their modes, links with their targets, and folders; without ``.git``."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(".git/"):
            continue
        data = os.readlink(path).encode() if path.is_symlink() else b""
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
        found[name] = (path.lstat().st_mode, data)
    return found


async def shell(copy: CopiedWorkspace, script: str) -> str:
    result = await copy.exec(("/bin/sh", "-c", script), limits=Limits())
    return result.stdout + result.stderr


@asynccontextmanager
async def in_place_or_skip(project: Path, level: Level) -> AsyncIterator[CopiedWorkspace]:
    """Open a copy at a level. Only an unavailable level skips the test, not a later error."""
    async with AsyncExitStack() as stack:
        try:
            copy = await stack.enter_async_context(in_place(project, wanted=level))
        except SandboxError as error:
            pytest.skip(error.line())
        yield copy


@pytest.mark.parametrize("level", ["full", "reduced"])
async def test_effect_and_commit(level: Level, project: Path) -> None:
    before = content(project)
    script = f"""
        cd {project}/src && sed -i s/two/TWO/ a.py && rm b.py && cd ..
        chmod +x run.sh; printf '\\0\\2' > data.bin; ln -sfn src link
        mkdir -p new/deep; echo hi > new/deep/f; touch old.log src/a.py; mkfifo pipe
        cat node_modules/x; git status --short | head -1; echo no > node_modules/x; touch .git/x
    """
    async with in_place_or_skip(project, level) as copy:
        said = await shell(copy, script)
        assert said.startswith("x\n") and said.count("Read-only file system") == 2
        effect = await copy.effect()
        assert content(project) == before, "nothing has happened yet"
        assert await copy.read(f"{project}/src/a.py") == b"one\nTWO\nthree\n"
        assert (await copy.commit()) == effect
        assert (await copy.effect()).paths == ()
    assert effect.paths == (
        *("data.bin", "link", "new", "new/deep", "new/deep/f", "run.sh", "src/a.py", "src/b.py"),
    )
    for line in (
        "Binary files a/data.bin and b/data.bin differ\n",
        "-run.sh\n\\ No newline at end of file\n+src\n",
        "new folder new/deep\n",
        "new file mode 100644\n--- /dev/null\n+++ b/new/deep/f\n",
        "old mode 100644\nnew mode 100755\n",
        "-two\n+TWO\n",
        "deleted file mode 100644\n--- a/src/b.py\n+++ /dev/null\n",
        "not applied, as it is not a file: pipe\n",
    ):
        assert line in effect.diff
    assert {file.path for file in PatchSet(effect.diff)} >= {"src/a.py", "src/b.py"}
    after = content(project)
    assert after["src/a.py"][1] == b"one\nTWO\nthree\n" and after["new/deep/f"][1] == b"hi\n"
    assert stat.S_IMODE(after["run.sh"][0]) & 0o100 and after["link"][1] == b"src"
    assert "src/b.py" not in after and "pipe" not in after
    assert after["node_modules/x"] == before["node_modules/x"]
    assert not [name for name in os.listdir(project) if name.startswith(".agentcli-")]


@pytest.fixture
def both(project: Path, tmp_path: Path) -> Iterator[tuple[Path, Path, tree.Tree, tree.Tree]]:
    """A workspace and a copy of it, without a sandbox."""
    folder = tmp_path / "copy"
    folder.mkdir()
    before = tree.survey(str(project))
    tree.copy(before, str(project), str(folder))
    yield project, folder, before, tree.survey(str(folder), apart=tuple(before.apart))


def bring_over(root: Path, folder: Path, before: tree.Tree, copied: tree.Tree) -> None:
    after = tree.survey(str(folder), apart=tuple(before.apart))
    found = effects.changes(before.entries, copied.entries, after.entries)
    effects.commit(str(root), str(folder), effects.real_changes(str(root), str(folder), found))


Both = tuple[Path, Path, tree.Tree, tree.Tree]


def test_what_cannot_be_put_back_is_kept(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its steps, a folder vanishes and a file cannot be made."""
    root, folder, before, copied = both
    (folder / "run.sh").write_text("new\n")
    (folder / "src/a.py").write_text("new\n")
    after = tree.survey(str(folder), apart=tuple(before.apart))
    found = effects.changes(before.entries, copied.entries, after.entries)
    old = {path: (root / path).read_text() for path in ("run.sh", "src/a.py")}

    def put(self: effects._Commit, index: int, change: effects.Change) -> None:
        shutil.rmtree(root / "src")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), change.path)

    monkeypatch.setattr(effects._Commit, "put", put)
    with pytest.raises(EnvironmentOpError, match="what was there before is in") as raised:
        effects.commit(str(root), str(folder), found)
    assert (root / "run.sh").read_text() == old["run.sh"]
    kept = root / str(raised.value).rsplit(" ", 1)[-1]
    assert old["src/a.py"] in [path.read_text() for path in kept.iterdir()]


@pytest.mark.parametrize("change", ["content", "mode", "gone", "replaced", "new", "same content"])
def test_conflicts(change: str, both: Both) -> None:
    root, folder, *_ = both
    (folder / "src/a.py").write_text("from the copy\n")
    (folder / "made").write_text("from the copy\n")
    target = root / "src/a.py"
    if change == "content":
        target.write_text("mine\n")
    elif change == "mode":
        target.chmod(0o755)
    elif change == "gone":
        target.unlink()
    elif change == "replaced":
        target.unlink()
        target.symlink_to("b.py")
    elif change == "new":
        (root / "made").write_text("mine\n")
    else:
        target.write_text(target.read_text())
    mine = content(root)
    with pytest.raises(EnvironmentOpError) as caught:
        bring_over(*both)
    assert caught.value.code == "CONFLICT" and "run it again" in caught.value.message
    assert content(root) == mine


def test_other_changes_of_the_workspace_stay(both: Both) -> None:
    root, folder, *_ = both
    (folder / "src/a.py").write_text("from the copy\n")
    (root / "src/b.py").write_text("mine\n")
    (root / "src/new").write_text("mine\n")
    bring_over(*both)
    assert (root / "src/a.py").read_text() == "from the copy\n"
    assert (root / "src/b.py").read_text() == (root / "src/new").read_text() == "mine\n"


def test_a_folder_that_holds_more_than_the_copy_knew_is_not_removed(both: Both) -> None:
    root, folder, *_ = both
    for name in ("src/a.py", "src/b.py"):
        (folder / name).unlink()
    (folder / "src").rmdir()
    (root / "src/new").write_text("mine\n")
    mine = content(root)
    with pytest.raises(EnvironmentOpError, match="src would be removed, but contains new"):
        bring_over(*both)
    assert content(root) == mine


def test_kinds_that_change_places(both: Both) -> None:
    root, folder, *_ = both
    for name in ("src/a.py", "src/b.py"):
        (folder / name).unlink()
    (folder / "src").rmdir()
    (folder / "src").write_text("a file now\n")
    (folder / "run.sh").unlink()
    (folder / "run.sh").mkdir()
    (folder / "run.sh/x").write_text("x\n")
    bring_over(*both)
    assert (root / "src").read_text() == "a file now\n" and (root / "run.sh/x").exists()


def test_all_or_nothing(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """If any step fails, for example because the disk is full, the previous ones are undone."""
    root, folder, *_ = both
    (folder / "src/a.py").write_text("new\n")
    (folder / "src/b.py").unlink()
    (folder / "new").mkdir()
    (folder / "new/f").write_text("f\n")
    (folder / "run.sh").write_text("new\n")
    mine, rename, done, failing = content(root), os.rename, [], 0

    def fails(*arguments: object, **more: object) -> None:
        done.append(arguments)
        if len(done) == failing:
            raise OSError(28, "No space left on device")
        rename(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", fails)
    for step in range(1, 7):
        done.clear()
        failing = step
        with pytest.raises(EnvironmentOpError, match="No space left") as caught:
            bring_over(*both)
        assert caught.value.code == "ENOSPC" and content(root) == mine
    failing = 0
    bring_over(*both)
    assert (root / "new/f").read_text() == "f\n" and not (root / "src/b.py").exists()


def test_no_link_is_followed_out_of_the_workspace(both: Both, tmp_path: Path) -> None:
    root, folder, *_ = both
    (folder / "src/new").write_text("x\n")
    outside = tmp_path / "outside"
    os.rename(root / "src", outside)
    (root / "src").symlink_to(outside)
    with pytest.raises(EnvironmentOpError):
        bring_over(*both)
    assert sorted(os.listdir(outside)) == ["a.py", "b.py"]


def test_names_are_quoted_as_git_does(both: Both) -> None:
    root, folder, before, copied = both
    (folder / 'new\nline"').write_text("x\n")
    (folder / os.fsdecode(b"\xff")).write_text("x\n")
    (folder / "ünïcode x").write_text("x\n")
    after = tree.survey(str(folder), apart=tuple(before.apart))
    found = effects.changes(before.entries, copied.entries, after.entries)
    diff = effects.describe(str(root), str(folder), found).diff
    for name in ('"b/new\\nline\\""', '"b/\\377"', "b/ünïcode x"):
        assert f"+++ {name}\n" in diff


def test_folders_that_git_excludes_are_left_out(project: Path) -> None:
    (project / ".git/info/exclude").write_text("src/\n")
    assert sorted(tree.survey(str(project)).apart) == [".git", "node_modules", "src"]


def test_too_large(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_FILES", 3)
    with pytest.raises(SandboxError, match="more than 3 files"):
        tree.copy(tree.survey(str(project)), str(project), str(tmp_path))


def test_shared_blocks_where_the_file_system_has_them(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/f").write_bytes(os.urandom(100_000))
    (tmp_path / "c").mkdir()
    shares = tree.can_share(str(tmp_path / "w"), str(tmp_path / "c"))
    assert os.listdir(tmp_path / "c") == []
    tree.copy(tree.survey(str(tmp_path / "w")), str(tmp_path / "w"), str(tmp_path / "c"))
    assert (tmp_path / "c/f").read_bytes() == (tmp_path / "w/f").read_bytes()
    (tmp_path / "c/f").write_bytes(b"x")
    assert (tmp_path / "w/f").stat().st_size == 100_000, f"shared: {shares}"


async def test_a_copy_of_another_name(project: Path) -> None:
    async with copied(project) as copy:
        assert copy.root != str(project) and await copy.read("src/a.py") == b"one\ntwo\nthree\n"
        await copy.write("src/a.py", b"x")
        folder = copy.root
    assert not os.path.exists(folder) and (project / "src/a.py").read_text() != "x"


async def test_a_copy_that_does_not_fit_says_where(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree, "copy", full)
    with pytest.raises(SandboxError, match=r"copied to .*: No space left on device") as caught:
        async with copied(project):
            pass
    assert "TMPDIR" in str(caught.value.hint)
