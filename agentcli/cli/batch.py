"""A batch: a folder of tasks, each run in its own copy of the workspace.

A batch has a folder in the data directory. Its ``batch.jsonl`` records in which session each task
began and how it ended; next to it are the copies and one patch per task. After a crash the same
command resumes the batch: finished tasks keep their results, started ones resume their sessions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from agentcli import task as tasks
from agentcli.errors import TaskError, UsageError, WorkspaceError
from agentcli.folders import data_folder
from agentcli.sandbox.git import DIFF, git
from agentcli.sandbox.outside import output_of


@dataclass
class Batch:
    """A folder of tasks over one workspace, with their sessions and results so far."""

    folder: Path
    workspace: Path
    tasks: dict[str, Path]
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        """The file that records when tasks begin and end, one JSON object per line."""
        return self.folder / "batch.jsonl"

    @property
    def open(self) -> list[str]:
        """The tasks without a result."""
        return [name for name in self.tasks if name not in self.ended]

    def record(self, entry: Mapping[str, Any]) -> None:
        """Append an entry and sync it to the disk."""
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def copy_of(self, name: str) -> Path:
        """The task's copy of the workspace, created if it does not exist yet.

        Raises:
            WorkspaceError: it cannot be created.
        """
        place = self.folder / "work" / name
        made = self.folder / "work" / f"{name}.made"
        digest = _digest(self.tasks[name])
        if made.exists():
            if made.read_text() == digest:
                return place
            # The task has been edited since. The copy with the earlier work is kept, renamed.
            with contextlib.suppress(FileNotFoundError):
                place.rename(place.with_name(f"{name}.{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"))
            made.unlink()
        shutil.rmtree(place, ignore_errors=True)  # left by a crash in the middle of copying
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            if is_repository(self.workspace):
                # Forced twice: git may still know a worktree that a crash left, even locked.
                add = ("worktree", "add", "--force", "--force", "--quiet", "--detach")
                with FileLock(self.folder.parent / "worktrees.lock"):  # git fails on two at once
                    git(self.workspace, *add, str(place), "HEAD", environ=os.environ)
            else:
                output_of(["cp", "-a", f"{self.workspace}/.", str(place)], os.environ, time_s=600)
        except OSError as error:
            raise WorkspaceError(f"no copy for {name}: {error}") from error
        made.write_text(digest)
        return place

    def arrival_of(self, name: str) -> Path:
        """The file for what another machine has returned, until it is unpacked."""
        return self.folder / f"{name}.{_digest(self.tasks[name])[:12]}.arrived"

    def patch_of(self, name: str) -> Path | None:
        """A file with the task's changes for ``git apply``; None if there are none."""
        place = self.folder / "work" / name
        patch = self.folder / f"{name}.patch"
        if not (place / ".git").exists():
            return None
        index = self.folder / f"{name}.index"
        own = {"GIT_INDEX_FILE": str(index)}
        try:
            for command in (("read-tree", "HEAD"), ("add", "--all")):
                git(place, *command, environ=os.environ, own=own)
            diff = (*DIFF, "--cached", "--binary", "HEAD")
            text = git(place, *diff, environ=os.environ, own=own)
        except OSError as error:
            raise WorkspaceError(f"no patch of {name}: {error}") from error
        finally:
            index.unlink(missing_ok=True)
        if not text:
            return None
        patch.write_text(text, encoding="utf-8", errors="surrogateescape")
        return patch


def find_tasks(folder: Path) -> dict[str, Path]:
    """The Markdown files of a folder by name, sorted.

    Raises:
        TaskError: there are none, or one of them is not a valid task.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.md")) if path.is_file()}
    if not found:
        raise TaskError(f"{folder}: there is no task in it", hint="A task is a file NAME.md")
    for path in found.values():
        tasks.read(path)
    return found


@contextlib.contextmanager
def opened(tasks_folder: Path, workspace: Path) -> Iterator[Batch]:
    """The unfinished batch of these tasks over this workspace, else a new one.

    Raises:
        TaskError: the folder contains no tasks.
        UsageError: another process is working on it.
    """
    found = find_tasks(tasks_folder)
    key = hashlib.sha256(f"{tasks_folder.resolve()}\0{workspace}".encode()).hexdigest()[:12]
    root = data_folder() / "batches"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(root / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError("another agentcli process is running these tasks") from error
    try:
        earlier = sorted(root.glob(f"{key}-*"))
        batch = _load(earlier[-1], workspace, found) if earlier else None
        if batch is None or not batch.open:
            name = f"{key}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
            batch = Batch(root / name, workspace, found)
            batch.folder.mkdir(mode=0o700)
        yield batch
    finally:
        lock.release()


def _load(folder: Path, workspace: Path, found: dict[str, Path]) -> Batch:
    batch = Batch(folder, workspace, found)
    with contextlib.suppress(FileNotFoundError):
        for line in batch.journal.read_text(encoding="utf-8").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut short by a crash
            name = entry.get("task")
            if name not in found or entry.get("digest") != _digest(found[name]):
                continue  # the task has been changed or removed since
            if "session" in entry:
                batch.sessions[name] = entry["session"]
            if "result" in entry:
                batch.ended[name] = entry["result"]
    return batch


def begin(batch: Batch, name: str, session: str) -> None:
    """Record a task's session, so that it can be resumed after a crash."""
    batch.record({"task": name, "digest": _digest(batch.tasks[name]), "session": session})


def interrupted(batch: Batch, name: str, why: str) -> None:
    """Record that the work on a task was lost, and that it starts again."""
    batch.record({"task": name, "digest": _digest(batch.tasks[name]), "interrupted": why})


def finish(batch: Batch, name: str, result: dict[str, Any]) -> None:
    """Record the result of a task and what it changed."""
    if result["status"] == "cancelled":
        return  # resumed by the next run
    with contextlib.suppress(WorkspaceError):
        patch = batch.patch_of(name)
        result = {**result, "patch": str(patch) if patch else None}
    result = {"task": name, "workspace": str(batch.folder / "work" / name), **result}
    batch.ended[name] = result
    batch.record({"task": name, "digest": _digest(batch.tasks[name]), "result": result})


def is_repository(folder: Path) -> bool:
    """Whether a folder is the top of a git repository that has a commit."""
    try:
        top = git(folder, "rev-parse", "--show-toplevel", environ=os.environ).strip()
        git(folder, "rev-parse", "--verify", "HEAD", environ=os.environ)
    except OSError:
        return False
    return Path(top) == folder


def is_changed(repository: Path) -> bool:
    """Whether files of a repository differ from its last commit."""
    return bool(git(repository, "status", "--porcelain", environ=os.environ))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
