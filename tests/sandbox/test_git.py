"""agentcli's own git calls run nothing that a repository has planted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentcli.sandbox.git import git


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A repository whose fsmonitor and hooks create a file when they run; and that file's path."""
    folder, mark = tmp_path / "repo", tmp_path / "mark"
    program = tmp_path / "planted"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for command in (
        ("init", "-q", str(folder)),
        ("-C", str(folder), "config", "core.fsmonitor", str(program)),
    ):
        subprocess.run(["git", *command], check=True)
    (folder / ".git" / "hooks" / "pre-commit").symlink_to(program)
    (folder / "a").write_text("a\n")
    return folder, mark


def test_monitors_and_hooks_do_not_run(planted: tuple[Path, Path]) -> None:
    folder, mark = planted
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in _WHO}
    assert git(folder, "status", "--porcelain", environ=os.environ) == "?? a\n"
    git(folder, "add", "a", environ=os.environ)
    git(folder, "commit", "-qm", "a", environ=os.environ, own=who)
    assert not mark.exists()
    subprocess.run(["git", "-C", str(folder), "status"], capture_output=True, check=True)
    assert mark.exists()  # plain git does run it


_WHO = ("NAME", "EMAIL")


def test_a_planted_bare_repository_is_none(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare")], check=True)
    with pytest.raises(OSError, match="bare"):
        git(tmp_path / "bare", "rev-parse", "HEAD", environ=os.environ)
