"""Which changes to a file are the session's own, with real repositories and merges."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcli.agent.events import WorkspaceChanged
from agentcli.changes import Changes
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import capture
from agentcli.own_changes import Own, own_changes

LINES = [f"line {number}\n" for number in range(1, 13)]


class Repository:
    """A workspace inside a git repository, and a session that changes it."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "top"
        self.root = self.top / "under it"
        self.root.mkdir(parents=True)
        self.blobs = Blobs(folder / "blobs")
        self.events: list[WorkspaceChanged] = []
        self.git("init", "-q")
        self.write("a.txt", LINES)
        self.git("add", "-A")
        self.git("commit", "-qm", "first")
        people = {
            f"GIT_{kind}_{what}": "me@here"
            for kind in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        self.changes = Changes(self.root, {**os.environ, **people})

    def git(self, *arguments: str) -> str:
        own = ("-c", "user.name=Me", "-c", "user.email=me@here")
        return subprocess.run(
            ["git", *own, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def write(self, name: str, lines: list[str]) -> None:
        (self.root / name).write_text("".join(lines))

    def changed(self, line: int, text: str, name: str = "a.txt") -> None:
        """Change a line, counted from 1, outside the session."""
        lines = (self.root / name).read_text().splitlines(keepends=True)
        lines[line - 1] = f"{text}\n"
        self.write(name, lines)

    def by_session(self, line: int, text: str, name: str = "a.txt") -> None:
        """Change a line as the session."""
        before = capture(str(self.root), name, self.blobs)
        self.changed(line, text, name)
        after = capture(str(self.root), name, self.blobs)
        self.events.append(WorkspaceChanged(1, {name: before}, {name: after}))

    def own(self, *names: str) -> Own:
        paths = names or ("a.txt",)
        return own_changes(self.root, paths, self.events, self.changes, self.blobs)

    def commit(self) -> Own:
        found = self.own()
        self.changes.commit(found.paths, "by the session", found.parts)
        return found

    def committed(self, name: str = "a.txt") -> list[str]:
        return self.git("show", f"HEAD:./{name}").splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    one = Repository(tmp_path)
    yield one
    one.blobs.close()


def test_a_file_that_only_the_session_changed_is_committed_whole(repository: Repository) -> None:
    repository.by_session(2, "session")
    assert repository.own() == Own(whole=["a.txt"])


def test_changes_of_the_user_before_and_between_and_after_stay_out(repository: Repository) -> None:
    repository.changed(1, "user before")
    repository.by_session(5, "session")
    repository.changed(9, "user between")
    repository.by_session(12, "session too")
    repository.changed(7, "user after")
    found = repository.commit()
    assert list(found.parts) == ["a.txt"]
    lines = repository.committed()
    assert (lines[4], lines[11]) == ("session", "session too")
    assert not [line for line in lines if "user" in line]
    on_disk = (repository.root / "a.txt").read_text()
    assert all(f"user {when}" in on_disk for when in ("before", "between", "after"))
    assert repository.git("status", "--porcelain").split() == ["M", "a.txt"]


def test_what_follows_a_commit_of_the_sessions_is_committed_as_well(
    repository: Repository,
) -> None:
    repository.by_session(5, "once")
    assert repository.commit() == Own(whole=["a.txt"])
    repository.changed(1, "user")
    repository.by_session(5, "twice")
    assert list(repository.commit().parts) == ["a.txt"]
    assert repository.committed()[4] == "twice"
    assert repository.own() == Own(), "all that is left is the user's"


def test_the_same_lines_cannot_be_told_apart(repository: Repository) -> None:
    repository.changed(5, "user")
    repository.by_session(5, "session")
    assert repository.own() == Own(mixed=["a.txt"])


def test_an_untracked_file_is_the_users_or_the_sessions(repository: Repository) -> None:
    repository.write("mine.txt", LINES)
    repository.by_session(1, "session", "mine.txt")
    repository.write("new.txt", LINES)
    made = capture(str(repository.root), "new.txt", repository.blobs)
    repository.events.append(WorkspaceChanged(1, {}, {"new.txt": made}))
    (repository.root / "a.txt").unlink()
    before = repository.committed()
    gone = WorkspaceChanged(2, {"a.txt": _entry(repository, before)}, {})
    repository.events.append(gone)
    found = repository.own("mine.txt", "new.txt", "a.txt")
    assert found == Own(whole=["a.txt", "new.txt"], mixed=["mine.txt"])


def test_links_and_what_is_no_text(repository: Repository) -> None:
    data = bytes(range(256)) * 9
    (repository.root / "raw").write_bytes(data)
    repository.git("add", "-A")
    repository.git("commit", "-qm", "raw")
    (repository.root / "raw").write_bytes(data + b"user")
    before = capture(str(repository.root), "raw", repository.blobs)
    (repository.root / "raw").write_bytes(b"session" + data + b"user")
    after = capture(str(repository.root), "raw", repository.blobs)
    (repository.root / "link").symlink_to("a.txt")
    link = capture(str(repository.root), "link", repository.blobs)
    repository.events.append(WorkspaceChanged(1, {"raw": before}, {"raw": after, "link": link}))
    assert repository.own("raw", "link") == Own(whole=["link"], mixed=["raw"])


def _entry(repository: Repository, lines: list[str]) -> str:
    digest = repository.blobs.put("".join(f"{line}\n" for line in lines).encode())
    return f"file 644 {digest}"
