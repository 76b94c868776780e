"""A repository that is kept and put back, with real git at work in between."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentcli.sandbox import removal, repository
from agentcli.sandbox.repository import Repository

ENV = {
    **{"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"},
    **{
        f"GIT_{role}_{what}": "a@b"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


class Work:
    """A workspace with two commits, a branch, a stash and staged changes."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store, self.git_folder = root, store, root / ".git"
        root.mkdir()
        self.git("init", "-q", "-b", "main")
        self.commit("one")
        self.git("branch", "side")
        self.commit("two")
        (root / "file").write_text("stashed")
        self.git("stash")
        (root / "file").write_text("staged")
        self.git("add", ".")
        self.repository = Repository(str(self.git_folder), str(store))
        self.repository.keep()

    def git(self, *arguments: str, input: str | None = None) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=ENV, check=True, capture_output=True, text=True, input=input
        ).stdout

    def commit(self, text: str) -> None:
        (self.root / "file").write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", text)

    def state(self) -> tuple[str, ...]:
        """What the user would miss."""
        self.git("fsck", "--strict")
        return (
            self.git("for-each-ref"),
            self.git("log", "--all", "--format=%H %s"),
            self.git("reflog"),
            self.git("stash", "show", "-p"),
            self.git("diff", "--cached"),
            self.git("symbolic-ref", "HEAD"),
        )


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    made = Work(tmp_path / "work", tmp_path / "data" / "repositories")
    yield made
    made.repository.close()
    assert not list(made.store.iterdir())


def emptied(work: Work) -> None:
    for path in work.git_folder.iterdir():
        if path.name != "config":  # as the sandbox leaves it
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def begun_anew(work: Work) -> None:
    emptied(work)
    work.git("init", "-q")


def without(name: str) -> Callable[[Work], None]:
    def remove(work: Work) -> None:
        path = work.git_folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def without_objects(work: Work) -> None:
    for path in (work.git_folder / "objects").iterdir():
        shutil.rmtree(path)


def without_object_files(work: Work) -> None:
    for path in (work.git_folder / "objects").rglob("*"):
        if path.is_file():
            path.unlink()


def begun_anew_with_a_commit(work: Work) -> None:
    begun_anew(work)
    work.git("add", ".")
    work.git("commit", "-q", "-m", "all gone")


@pytest.mark.parametrize(
    "damage",
    [
        *(emptied, begun_anew, begun_anew_with_a_commit, without_objects, without_object_files),
        *map(without, ("objects", "refs", "HEAD", "refs/heads/main")),
    ],
)
def test_everything_comes_back(work: Work, damage: Callable[[Work], None]) -> None:
    before = work.state()
    damage(work)
    assert work.repository.is_damaged()
    emptied(work)  # what is left is moved away before
    work.repository.put_back()
    assert not work.repository.is_damaged()
    assert work.state() == before


def test_what_git_itself_does_is_no_damage_and_is_kept(work: Work) -> None:
    for number in range(3):
        work.git("commit", "-q", "--allow-empty", "-m", f"more {number}")
        work.commit(f"still more {number}")
        assert not work.repository.is_damaged()
        work.repository.keep()
    work.git("branch", "-D", "side")
    work.git("branch", "other")
    work.git("pack-refs", "--all")
    work.git("gc", "-q", "--prune=now")
    (work.root / "file").write_text("staged anew")
    work.git("add", ".")
    assert not work.repository.is_damaged()
    work.repository.keep()
    work.git("checkout", "-q", "-f", "other")
    work.git("worktree", "add", "-q", "../tree")
    work.repository.keep()
    before = work.state()
    emptied(work)
    work.repository.put_back()
    assert work.state() == before
    assert work.git("branch", "--list", "side") == ""


def test_it_is_kept_and_put_back_again_after_that(work: Work) -> None:
    for number in range(3):
        work.commit(f"more {number}")
        work.repository.keep()
        before = work.git("log", "--format=%H")
        emptied(work)
        work.repository.put_back()
        assert work.git("log", "--format=%H") == before
        work.repository.keep()
    assert not work.repository.is_damaged()


def test_packs_that_vanish_come_back(work: Work) -> None:
    work.git("gc", "-q")
    work.commit("three")
    work.repository.keep()
    before = work.state()
    for pack in (work.git_folder / "objects/pack").glob("*.pack"):
        pack.unlink()
    assert work.repository.is_damaged()
    work.repository.put_back()
    assert work.state() == before


def test_a_folder_of_refs_becomes_a_ref_and_back(work: Work) -> None:
    for remove, make in (("none", "a/x"), ("a/x", "a"), ("a", "a/x")):
        if remove != "none":
            work.git("branch", "-D", remove)
        work.git("branch", make)
        work.repository.keep()
    before = work.state()
    emptied(work)
    assert work.repository.is_damaged()
    work.repository.put_back()
    assert work.state() == before


def test_what_is_removed_while_no_command_runs_was_meant(work: Work) -> None:
    shutil.rmtree(work.git_folder)
    work.repository.keep()
    work.git("init", "-q")
    assert not work.repository.is_damaged()
    work.repository.keep()
    work.commit("new")
    assert not work.repository.is_damaged()


def test_what_another_command_is_removing_is_still_kept(work: Work) -> None:
    work.commit("three")
    work.repository.keep(busy=True)
    before = work.state()
    shutil.rmtree(work.git_folder / "refs/heads")
    work.repository.keep(busy=True)
    (work.git_folder / "HEAD").unlink()
    work.repository.keep(busy=True)
    emptied(work)
    assert work.repository.is_damaged()
    work.repository.put_back()
    assert work.state() == before


def test_a_repository_that_another_process_put_back_is_whole(work: Work) -> None:
    other = Repository(str(work.git_folder), str(work.store))
    other.keep()
    emptied(work)
    other.put_back()
    other.close()
    work.commit("three")
    assert not work.repository.is_damaged()


def test_what_cannot_be_put_back_stays_and_is_tried_again(work: Work) -> None:
    before = work.state()
    shutil.rmtree(work.git_folder)
    work.git_folder.symlink_to("nowhere/at/all")
    with pytest.raises(OSError, match="exists"):
        work.repository.put_back()
    work.repository.keep()
    work.git_folder.unlink()
    assert work.repository.is_damaged()
    work.repository.put_back()
    assert work.state() == before


def test_what_is_kept_may_be_gone(work: Work) -> None:
    shutil.rmtree(work.repository.kept)
    emptied(work)
    assert work.repository.is_damaged()
    with pytest.raises(OSError, match=r"gone|No such file"):
        work.repository.put_back()


def test_modes_and_links_are_as_before(work: Work) -> None:
    (work.git_folder / "lfs").symlink_to("../lfs")
    work.git_folder.chmod(0o700)
    (work.git_folder / "objects").chmod(0o775)
    work.repository.close()
    work.repository.keep()
    shutil.rmtree(work.git_folder)
    work.repository.put_back()
    assert os.readlink(work.git_folder / "lfs") == "../lfs"
    assert stat.S_IMODE(work.git_folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((work.git_folder / "objects").stat().st_mode) == 0o775


def test_deep_folders_are_kept(work: Work) -> None:
    deep = str(work.git_folder)
    for _ in range(1200):
        deep += "/d"
        os.mkdir(deep)
    work.repository.keep()
    shutil.rmtree(work.git_folder / "refs")
    assert work.repository.is_damaged()
    removal.remove(str(work.git_folder / "d"))  # which shutil cannot


def test_a_purged_repository_without_commits_is_no_damage(tmp_path: Path) -> None:
    root = tmp_path / "work"
    subprocess.run(["git", "init", "-q", root], env=ENV, check=True)
    (root / "secret").write_text("x")
    subprocess.run(["git", "add", "."], cwd=root, env=ENV, check=True)
    fresh = Repository(str(root / ".git"), str(tmp_path / "store"))
    fresh.keep()
    for command in ("git rm -q --cached secret", "git gc -q --prune=now"):
        subprocess.run(command.split(), cwd=root, env=ENV, check=True)
    assert not fresh.is_damaged()
    fresh.close()


def test_the_first_commit_can_be_undone(tmp_path: Path) -> None:
    root = tmp_path / "work"
    subprocess.run(["git", "init", "-q", root], env=ENV, check=True)
    for command in ("git commit -q --allow-empty -m one", "git update-ref -d HEAD"):
        fresh = Repository(str(root / ".git"), str(tmp_path / "store"))
        fresh.keep()
        subprocess.run(command.split(), cwd=root, env=ENV, check=True)
        assert not fresh.is_damaged()
        fresh.close()


def test_packs_can_become_one_of_them(work: Work) -> None:
    work.git("gc", "-q")
    work.git("pack-objects", "-q", ".git/objects/pack/pack", "--all", "--revs", input="main~1\n")
    assert len(list((work.git_folder / "objects/pack").glob("*.pack"))) == 2
    work.repository.keep()
    work.git("repack", "-adq")
    assert len(list((work.git_folder / "objects/pack").glob("*.pack"))) == 1
    assert not work.repository.is_damaged()


def test_in_a_home_folder_nothing_is_kept(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], env=ENV, check=True)
    home = Repository(str(tmp_path / ".git"), str(tmp_path / ".local/share/agentcli"))
    home.keep()
    assert not (tmp_path / ".local").exists()


def test_a_repository_on_another_disk_is_copied(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk here")
    before = work.state()
    store = memory / f"agentcli-test-{os.getpid()}"
    try:
        far = Repository(str(work.git_folder), str(store))
        far.keep()
        emptied(work)
        assert far.is_damaged()
        far.put_back()
        assert work.state() == before
        far.close()
        monkeypatch.setattr(repository, "MOST_COPIED", 100)
        far = Repository(str(work.git_folder), str(store))
        far.keep()
        assert not list(store.iterdir()) and not far.is_damaged()
    finally:
        shutil.rmtree(store, ignore_errors=True)


def test_too_many_files_are_not_kept(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MOST_FILES", 10)
    other = Repository(str(work.git_folder), str(work.store))
    other.keep()
    emptied(work)
    assert not other.is_damaged()
    other.keep()
    assert len(list(work.store.iterdir())) == 1  # the fixture's own


def test_there_may_be_no_repository_or_none_to_speak_of(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for folder in ("none", "file", "bare"):
        if folder == "file":
            (tmp_path / folder).write_text("gitdir: elsewhere")
        if folder == "bare":
            (tmp_path / folder).mkdir()
        none = Repository(str(tmp_path / folder), str(store))
        none.keep()
        assert not none.is_damaged()
        none.close()
    assert not store.exists()


def test_a_new_repository_is_no_damage(tmp_path: Path) -> None:
    root = tmp_path / "work"
    fresh = Repository(str(root / ".git"), str(tmp_path / "store"))
    fresh.keep()
    subprocess.run(["git", "init", "-q", root], env=ENV, check=True)
    assert not fresh.is_damaged()
    fresh.keep()
    shutil.rmtree(root / ".git")
    assert fresh.is_damaged()
    fresh.close()


def test_what_a_killed_process_left_is_removed_unless_it_is_needed(work: Work) -> None:
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    pid, project = ended.stdout.strip(), work.root.parent / "damaged"
    whole, needed = (work.store / f"git-{pid}-{name}" for name in ("a", "b"))
    for left, git in ((whole, work.git_folder), (needed, project / ".git")):
        left.mkdir()
        (left / "of").write_text(str(git))
    project.mkdir()
    work.repository.close()
    work.repository.keep()
    assert not whole.exists() and needed.exists()
    project.rmdir()
    work.repository.close()
    work.repository.keep()
    assert not needed.exists()
