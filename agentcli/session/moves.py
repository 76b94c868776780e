"""Moves the files of a workspace from one recorded state to another, with a preview."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentcli.agent.events import WorkspaceChanged
from agentcli.diff import unified_diff
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import Entry, capture, put_back
from agentcli.errors import SnapshotError, UsageError
from agentcli.text import encodable

_SHOWN = 1 << 20
"""Files of more bytes are shown in a diff only as differing."""


@dataclass(frozen=True, slots=True)
class Move:
    """A path with its current and its target entry. ``conflict`` says why moving is not safe."""

    path: str
    now: str
    target: str
    conflict: str = ""

    @property
    def possible(self) -> bool:
        """Whether both contents are kept, so that the move loses nothing."""
        return all(not text or Entry.parse(text).kept for text in (self.now, self.target))

    @property
    def of_file(self) -> bool:
        """Whether a file is moved, on either side, and not only a folder."""
        return any(text and Entry.parse(text).kind != "dir" for text in (self.now, self.target))


def summed(
    changes: Sequence[WorkspaceChanged],
) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Sum up changes by tools.

    Return each path's entry before its first change, its entry after its last one, and the paths
    that were changed by something else in between.
    """
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    torn: set[str] = set()
    for event in changes:
        if event.outside:
            continue
        for path in {*event.before, *event.after}:
            before, after = event.before.get(path, ""), event.after.get(path, "")
            if path in last and last[path] != before:
                torn.add(path)
            first.setdefault(path, before)
            last[path] = after
    return first, last, torn


def undo_moves(root: str, changes: Sequence[WorkspaceChanged], blobs: Blobs) -> list[Move]:
    """The moves that undo ``changes``, which are in chronological order."""
    first, last, torn = summed(changes)
    return _moves(root, first, last, blobs, torn)


def redo_moves(
    root: str, before: Mapping[str, str], after: Mapping[str, str], blobs: Blobs
) -> list[Move]:
    """The moves that redo what was undone: from ``after`` to ``before``."""
    paths = {*before, *after}
    return _moves(
        root,
        {path: before.get(path, "") for path in paths},
        {path: after.get(path, "") for path in paths},
        blobs,
    )


def _moves(
    root: str,
    targets: Mapping[str, str],
    expected: Mapping[str, str],
    blobs: Blobs,
    torn: Iterable[str] = (),
) -> list[Move]:
    if targets and not os.path.isdir(root):
        raise UsageError(
            f"the workspace {root} does not exist",
            hint="Restore the folder: undo and redo need its files",
        )
    moves = []
    for path in sorted(targets):
        now, target = capture(root, path, blobs), targets[path]
        if now == target:
            continue
        conflict = ""
        if now != expected[path]:
            conflict = "it was changed since" if now else "it was removed since"
        elif path in torn:
            conflict = "someone else changed it in between"
        moves.append(Move(path, now, target, conflict))
    blobs.flush()
    return moves


def diff_of(moves: Iterable[Move], blobs: Blobs) -> str:
    """What the moves would change, as a unified diff in git's format."""
    return "".join(_diff(move, blobs) for move in moves if move.possible)


def _diff(move: Move, blobs: Blobs) -> str:
    now = Entry.parse(move.now) if move.now else None
    target = Entry.parse(move.target) if move.target else None
    path = encodable(move.path)
    head = ""
    if now and target and now.kind == target.kind and now.mode != target.mode:
        head = f"diff --git a/{path} b/{path}\nold mode {now.mode:o}\nnew mode {target.mode:o}\n"
    if "dir" in (now and now.kind, target and target.kind):
        if now and target and now.kind == target.kind:
            return head
        return f"{'new' if target else 'deleted'} folder {path}\n" if not (now and target) else ""
    old, new = (_text(entry, blobs) for entry in (now, target))
    if old is None or new is None:
        return f"{head}Binary files a/{path} and b/{path} differ\n"
    diff = unified_diff(old if now else None, new, path)
    if not diff and not (now and target):
        return f"{'new' if target else 'deleted'} empty file {path}\n"
    if not target:
        diff = diff.replace(f"\n+++ b/{path}\n", "\n+++ /dev/null\n", 1)
    return head + diff


def _text(entry: Entry | None, blobs: Blobs) -> str | None:
    if entry is None:
        return ""
    try:
        data = blobs.get(entry.digest)
    except SnapshotError:
        return None
    if len(data) > _SHOWN or b"\0" in data:
        return None
    return data.decode("utf-8", "replace")


def carry_out(root: str, moves: Sequence[Move], blobs: Blobs) -> list[Move]:
    """Make the possible moves, all or none, and return them.

    Raises:
        SnapshotError: one of them failed; the previous ones were rolled back.
    """
    possible = [move for move in moves if move.possible]
    for text in (text for move in possible for text in (move.now, move.target) if text):
        if digest := Entry.parse(text).digest:
            blobs.get(digest)  # what is damaged in the store must not be removed from the workspace
    gone = [move for move in reversed(possible) if not move.target]  # contents before their folder
    made = [move for move in possible if move.target]
    done: list[Move] = []
    try:
        for move in (*gone, *made):
            done.append(move)
            put_back(root, move.path, move.target, blobs)
    except SnapshotError:
        new = [move for move in reversed(done) if not move.now]
        old = sorted((move for move in done if move.now), key=lambda move: move.path)
        for move in (*new, *old):
            with contextlib.suppress(SnapshotError):  # the disk may be full; the others come back
                put_back(root, move.path, move.now, blobs)
        raise
    return possible


def set_aside(moves: Sequence[Move], folder: Path, blobs: Blobs) -> Path:
    """Copy what is about to be overwritten into a new folder below ``folder``.

    Raises:
        SnapshotError: a copy cannot be written.
    """
    place = folder / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    try:
        place.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise SnapshotError(f"cannot write {place}: {error.strerror}") from error
    for move in moves:
        if move.now and move.possible:
            put_back(str(place), move.path, move.now, blobs)
    return place


def write_files(files: Mapping[str, str], folder: Path, blobs: Blobs) -> tuple[str, ...]:
    """Fill an empty folder with files; return those whose content was not kept.

    Raises:
        SnapshotError: a file cannot be written.
    """
    missing = []
    modes = []
    for path in sorted(files):
        entry = Entry.parse(files[path])
        if not entry.kept:
            missing.append(path)
        elif entry.kind == "dir":
            put_back(str(folder), path, str(Entry("dir", 0o700)), blobs)
            modes.append((path, entry.mode))
        else:
            put_back(str(folder), path, files[path], blobs)
    for path, mode in reversed(modes):  # after its files, as the mode may forbid writing
        os.chmod(folder / path, mode)
    return tuple(missing)
