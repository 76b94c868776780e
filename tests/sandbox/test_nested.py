"""Nested repositories and editor folders, whose files the host's programs would obey."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agentcli.sandbox.nested import Nested, naming_programs, without_programs
from agentcli.sandbox.restore import Guard

COMMIT = "git -c user.name=a -c user.email=a@b commit -qm x"
SUB = f"mkdir sub && cd sub && git init -q . && echo a>f && git add f && {COMMIT} && cd .. "


class Place:
    """A guarded repository, and a way to run commands that plant files in it."""

    def __init__(self, root: Path, quarantine: Path) -> None:
        self.root = root
        self.quarantine = quarantine
        self.guard = Guard(str(root), str(quarantine))
        subprocess.run(["git", "init", "-q", root], check=True)

    def run(self, script: str) -> list[str]:
        self.guard.begin()
        subprocess.run(["sh", "-ec", script], cwd=self.root, check=True)
        return self.guard.end(read_only=True)

    def status(self) -> None:
        subprocess.run(["git", "status"], cwd=self.root, check=True, capture_output=True)


@pytest.fixture
def place(workspace: Path, tmp_path: Path) -> Place:
    return Place(workspace, tmp_path / "quarantine")


def test_the_host_runs_nothing_from_a_repository_below(place: Place, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    attack = f'; git -C sub config core.fsmonitor "touch {mark}; false"'
    said = place.run(f"{SUB} && git add sub && {COMMIT} {attack}")
    assert len(said) == 1 and said[0].startswith("sub/.git/config: lines that name programs")
    place.status()
    assert not mark.exists()
    assert "fsmonitor" not in (place.root / "sub/.git/config").read_text()
    subprocess.run(["git", "-C", place.root / "sub", "log"], check=True, capture_output=True)
    assert place.run(attack[1:])  # again, now that the repository is known
    place.status()
    assert not mark.exists()


def test_ordinary_work_below_is_left_alone(place: Place) -> None:
    script = f"{SUB} && git clone -q sub copy && git -C copy config user.name Ada && git add sub"
    assert place.run(script) == []
    (place.root / "sub/.git/hooks/pre-commit").write_text("the user's own")
    subprocess.run(["git", "-C", place.root / "sub", "config", "core.pager", "less"], check=True)
    assert place.run("mv sub moved; rm -r copy") == []
    assert place.run("git -C moved config user.email a@b") == []
    assert place.run("git -C moved worktree add -q ../tree") == []
    assert place.run("rm -r moved tree") == []


@pytest.mark.parametrize(
    ("script", "gone"),
    [
        ("echo evil > sub/.git/hooks/pre-commit", "sub/.git/hooks/pre-commit"),
        ("rm -r sub/.git/hooks; ln -s /x sub/.git/hooks", "sub/.git/hooks"),
        ("echo ../evil > sub/.git/commondir", "sub/.git/commondir"),
        ("mv sub/.git evil; ln -s ../evil sub/.git", "sub/.git"),
        ("rm -rf sub/.git; echo 'gitdir: /elsewhere' > sub/.git", "sub/.git"),
        ("mkdir -p a/b/.vscode; echo x > a/b/.vscode/tasks.json", "a/b/.vscode"),
        ("echo x > sub/.envrc", "sub/.envrc"),
        ("cd sub/.git/hooks; for i in $(seq 2500); do : > $i.sample; done", "sub/.git/hooks"),
        (
            "mkdir -p node_modules/x; cd node_modules/x; echo gitdir: /x > .git",
            "node_modules/x/.git",
        ),
        ("mkdir a; cd a; echo ref: x > HEAD; echo ../evil > commondir", "a/HEAD"),
    ],
)
def test_what_is_planted_below_is_gone_again(script: str, gone: str, place: Place) -> None:
    place.run(SUB)
    said = place.run(script)
    assert any(line.startswith(f"{gone}: ") for line in said), said
    left = place.root / gone
    empty = left.is_dir() and not left.is_symlink() and not list(left.iterdir())
    assert empty or not (left.exists() or left.is_symlink())


def test_a_git_file_leads_only_to_what_is_watched(place: Place) -> None:
    place.run(
        f"{SUB} && mkdir -p x/y/z && "
        "mv sub/.git x/y/z/odd && echo 'gitdir: ../x/y/z/odd' > sub/.git"
    )
    said = place.run("git -C sub config core.pager evil")
    assert [line.partition(":")[0] for line in said] == ["x/y/z/odd/config"]
    (place.root / ".git/modules").mkdir()
    place.run("mv x/y/z/odd .git/modules/sub; echo 'gitdir: ../.git/modules/sub' > sub/.git")
    assert place.run("git -C sub config core.worktree ../../../sub") == []
    assert place.run("git -C sub config core.sshCommand evil")
    assert "evil" not in (place.root / ".git/modules/sub/config").read_text()


def test_submodules_of_any_name_are_watched(place: Place) -> None:
    place.run(SUB)
    plant = "mkdir -p .git/modules; cp -r sub/.git .git/modules/{0}; echo x > .git/modules/{0}/{1}"
    for name in ("hooks", "objects", "a"):
        said = place.run(plant.format(name, "hooks/pre-commit"))
        assert [line.partition(":")[0] for line in said] == [
            f".git/modules/{name}/hooks/pre-commit"
        ]


def test_what_was_there_comes_back(place: Place) -> None:
    (place.root / "a").mkdir()
    (place.root / "a/.envrc").write_text("mine")
    assert place.run("echo evil > a/.envrc")[0].startswith("a/.envrc: put back")
    assert (place.root / "a/.envrc").read_text() == "mine"


def test_dependencies_may_bring_editors_folders(place: Place) -> None:
    assert place.run("mkdir -p node_modules/x/.vscode; echo x > node_modules/x/.vscode/a") == []


def test_a_write_by_a_file_tool_blesses_nothing_else(place: Place) -> None:
    place.guard.begin()
    for name in ("mine", "planted"):
        (place.root / name).mkdir()
        (place.root / name / ".envrc").write_text(name)
    place.guard.approve("mine/.envrc")
    assert [line.partition(":")[0] for line in place.guard.end(True)] == ["planted/.envrc"]
    assert (place.root / "mine/.envrc").exists()


@pytest.mark.parametrize(
    "text",
    [
        '[core]\nfsmonitor = "x"',
        "[core]\n#\v[user]\nfsmonitor = x",
        "[core]\n# \u2028[user]\nfsmonitor = x",
        '[remote "a"]\nuploadpack = x',
        "[user]\nname = \\\n[core]\nfsmonitor = x",
        "[user] name = x",
        "[include]\npath = x",
        "[core]\nworktree = /etc",
    ],
)
def test_lines_that_name_programs(text: str) -> None:
    assert naming_programs(text.encode()) != set()
    assert b"fsmonitor" not in without_programs(text.encode(), "/w", "/w")


class Tree:
    """Makes random changes to a workspace, as a command might."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.aside = root.parent / "aside"
        self.aside.mkdir()

    def folders(self) -> list[Path]:
        return [
            self.root,
            *(Path(one) for one, _, _ in os.walk(self.root) if one != str(self.root)),
        ]

    def change(self) -> None:
        folder = self.chance.choice(self.folders())
        other = self.chance.choice(self.folders())
        name = self.chance.choice(["a", "b", ".git", "modules", "worktrees", "HEAD", ".vscode"])
        actions: list[Callable[[], object]] = [
            lambda: (folder / name).mkdir(),
            lambda: (folder / name).mkdir(),
            lambda: (folder / name).write_text("gitdir: ../a"),
            lambda: (folder / name).symlink_to("a"),
            lambda: folder.rename(other / name),
            lambda: self.swap(folder, other),
            lambda: self.renew(folder),
            lambda: self.out_and_in(folder, name),
            lambda: (folder / name).unlink(),
            lambda: shutil.rmtree(folder) if folder != self.root else None,
            lambda: self.bare(folder),
        ]
        with contextlib.suppress(OSError, shutil.Error):
            self.chance.choice(actions)()

    def swap(self, one: Path, other: Path) -> None:
        if one not in other.parents and other not in one.parents and one != other:
            one.rename(self.aside / "x")
            other.rename(one)
            (self.aside / "x").rename(other)

    def bare(self, folder: Path) -> None:
        for part in ("HEAD", "objects", "refs"):
            (folder / part).mkdir()

    def renew(self, folder: Path) -> None:
        if folder != self.root:
            shutil.rmtree(folder)
            (folder / "a").mkdir(parents=True)

    def out_and_in(self, folder: Path, name: str) -> None:
        if folder != self.root:
            folder.rename(self.aside / "x")
            (self.aside / "x" / name).mkdir(exist_ok=True)
            (self.aside / "x").rename(folder)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_what_changed_is_found_as_by_a_new_walk(tmp_path: Path, seed: int, told: bool) -> None:
    root = tmp_path / "work"
    root.mkdir()
    tree = Tree(root, seed)
    nested = Nested(str(root))
    nested.find()
    if not told:
        nested.close()
    for _ in range(60):
        for _ in range(tree.chance.choice([1, 1, 5])):
            tree.change()
        fresh = Nested(str(root))
        assert nested.find() == fresh.find()
        fresh.close()
    nested.close()


def test_an_overflow_of_the_event_queue(tmp_path: Path) -> None:
    nested = Nested(str(tmp_path))
    nested.find()
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    Path(one).write_text("")
    for _ in range(4500):  # 4 events each; the queue holds 16,384
        os.rename(one, other)
        os.rename(other, one)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / ".git").mkdir()
    assert "deep/er/.git/config" in nested.find()
    (tmp_path / "deep" / "er" / "still" / ".git").mkdir(parents=True)
    assert "deep/er/still/.git/config" in nested.find()
    nested.close()
