"""The changes made on a copy of a workspace: shown as a diff, and applied to the workspace.

``commit`` writes all of them or none, and only if the files concerned have not changed since they
were copied. It works from open folders and never follows a link, so it cannot write outside.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentcli.diff import unified_diff
from agentcli.environments.base import Effect
from agentcli.environments.tree import CACHES, Stamp, stamp
from agentcli.errors import EnvironmentOpError

MOST_SHOWN = 4 << 20
"""Bytes; of a larger file the diff says only that it differs."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change at one path; None means that nothing is there. ``before`` is in the workspace."""

    path: str
    before: Stamp | None
    after: Stamp | None


def changes(
    workspace: Mapping[str, Stamp], copied: Mapping[str, Stamp], after: Mapping[str, Stamp]
) -> list[Change]:
    """The paths whose stamp on the copy has changed from ``copied`` to ``after``."""
    paths = sorted({*copied, *after})
    return [
        Change(path, workspace.get(path), after.get(path))
        for path in paths
        if copied.get(path) != after.get(path)
    ]


def real_changes(root: str, place: str, found: Sequence[Change]) -> list[Change]:
    """The changes of content, kind or mode, without files that were merely touched."""
    return [change for change in found if not _is_same(root, place, change)]


def _is_same(root: str, place: str, change: Change) -> bool:
    one, other = change.before, change.after
    if one is None or other is None or one[:2] != other[:2]:
        return False
    if stat.S_ISDIR(one.kind):
        return True
    if one.size != other.size:
        return False
    try:
        if stat.S_ISLNK(one.kind):
            return _content(root, change.path) == _content(place, change.path)
        return _has_same_bytes(os.path.join(root, change.path), os.path.join(place, change.path))
    except OSError:  # gone in the meantime, which the commit will report
        return False


def _has_same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            data = a.read(1 << 20)
            if data != b.read(1 << 20):
                return False
            if not data:
                return True


def _content(root: str, path: str) -> bytes:
    full = os.path.join(root, path)
    if os.path.islink(full):
        return os.fsencode(os.readlink(full))
    with open(full, "rb") as file:
        return file.read()


def describe(root: str, place: str, found: Sequence[Change]) -> Effect:
    """The changes as a diff in git's format."""
    parts = [part for change in found for part in _shown(root, place, change)]
    return Effect("".join(parts), tuple(change.path for change in found))


def _shown(root: str, place: str, change: Change) -> Iterator[str]:
    one, other = change.before, change.after
    name_a, name_b = _name(f"a/{change.path}"), _name(f"b/{change.path}")
    folder = _name(change.path)
    if any(side is not None and stat.S_ISDIR(side.kind) for side in (one, other)):
        if one is None or (other is not None and not stat.S_ISDIR(one.kind)):
            yield f"new folder {folder}\n"
        elif other is None:
            yield f"deleted folder {folder}\n"
        elif stat.S_ISDIR(other.kind):
            yield f"folder {folder}: old mode {one.mode:o}, new mode {other.mode:o}\n"
        if other is None or stat.S_ISDIR(other.kind):
            return
        one = None  # a file replaces a folder
    yield f"diff --git {name_a} {name_b}\n"
    if one is None and other is not None:
        yield f"new file mode {_mode(other)}\n"
    elif one is not None and other is None:
        yield f"deleted file mode {_mode(one)}\n"
    elif one is not None and other is not None and _mode(one) != _mode(other):
        yield f"old mode {_mode(one)}\nnew mode {_mode(other)}\n"
    before, after = _text(root, change.path, one), _text(place, change.path, other)
    if before is False or after is False:
        yield f"Binary files {name_a if one else '/dev/null'} and "
        yield f"{name_b if other else '/dev/null'} differ\n"
        return
    old, new = before or "", after or ""
    if old == new:
        return
    body = unified_diff(old, new, change.path).partition("\n")[2].partition("\n")[2]
    yield f"--- {name_a if one else '/dev/null'}\n+++ {name_b if other else '/dev/null'}\n{body}"


def _text(root: str, path: str, side: Stamp | None) -> str | Literal[False] | None:
    """The text of a file or the target of a link; None if nothing is there, False for binary."""
    if side is None:
        return None
    if side.size > MOST_SHOWN:
        return False
    try:
        text = _content(root, path).decode()
    except (OSError, UnicodeDecodeError):  # gone in the meantime, or not text
        return False
    return False if "\0" in text else text


def _mode(side: Stamp) -> str:
    if stat.S_ISLNK(side.kind):
        return "120000"
    return "100755" if side.mode & stat.S_IXUSR else "100644"


def _name(name: str) -> str:
    """Quote a name as git does, if it needs quoting."""
    raw = os.fsencode(name)
    if all(32 <= byte < 127 and byte not in b'"\\' for byte in raw):
        return name
    with contextlib.suppress(UnicodeDecodeError):
        if raw.decode().isprintable() and not set(b'"\\') & set(raw):
            return name
    return '"' + "".join(_QUOTED.get(byte, chr(byte)) for byte in raw) + '"'


_QUOTED = {byte: f"\\{byte:03o}" for byte in (*range(32), *range(127, 256))}
_QUOTED |= {ord("\n"): "\\n", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\"}


def conflicts(root: str, found: Sequence[Change]) -> list[str]:
    """The paths that have changed in the workspace since the copy was made."""
    return [change.path for change in found if now(root, change.path) != change.before]


def now(root: str, path: str) -> Stamp | None:
    """The stamp of what is there, or None."""
    try:
        return stamp(os.lstat(os.path.join(root, path)))
    except (FileNotFoundError, NotADirectoryError):
        return None


def commit(root: str, place: str, found: Sequence[Change]) -> None:
    """Apply the changes to the workspace.

    Raises:
        EnvironmentOpError: code ``CONFLICT`` if a path has changed since the copy was made, else
            the symbolic errno of what failed. The workspace is unchanged then.
    """
    if clashing := conflicts(root, found):
        shown = ", ".join(_name(path) for path in clashing[:5])
        more = f" and {len(clashing) - 5} more" if len(clashing) > 5 else ""
        raise EnvironmentOpError(
            f"changed in the workspace since the copy was made: {shown}{more}; "
            "nothing was applied; run it again",
            code="CONFLICT",
        )
    with _Commit(root, place) as work:
        try:
            for index, change in enumerate(found):
                work.stage(index, change)
            for change in sorted(found, key=lambda change: change.path, reverse=True):
                work.take_away(change)  # a folder's contents before the folder
            for index, change in enumerate(found):
                work.put(index, change)
        except OSError as error:
            left = work.undo()
            where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            raise EnvironmentOpError(
                f"the changes cannot be applied: {where}{error.strerror}; {left}",
                code=errno.errorcode.get(error.errno or 0, "EIO"),
            ) from error
        except EnvironmentOpError as error:
            raise EnvironmentOpError(f"{error.message}; {work.undo()}", code=error.code) from error
        except BaseException:
            work.undo()
            raise


class _Commit:
    """One commit: new files are created in a staging folder in the workspace, old ones moved there.

    If the process is killed halfway, everything that was there before is in that folder.
    """

    def __init__(self, root: str, place: str) -> None:
        self._place = place
        self._name = f".agentcli-{secrets.token_hex(6)}"
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._undoing: list[Callable[[], None]] = []
        self._moved = 0
        self._keep = False

    def __enter__(self) -> _Commit:
        os.mkdir(self._name, 0o700, dir_fd=self._root)
        self._stage = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._stage)
        if not self._keep:
            shutil.rmtree(self._name, dir_fd=self._root, ignore_errors=True)
        os.close(self._root)

    def stage(self, index: int, change: Change) -> None:
        """Create the new file or link in the staging folder."""
        after = change.after
        if after is None or stat.S_ISDIR(after.kind):
            return
        name, source = f"new-{index}", os.path.join(self._place, change.path)
        if stat.S_ISLNK(after.kind):
            os.symlink(os.readlink(source), name, dir_fd=self._stage)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with (
            open(source, "rb") as old,
            open(os.open(name, flags, 0o600, dir_fd=self._stage), "wb") as new,
        ):
            shutil.copyfileobj(old, new, 1 << 20)
            if change.before is not None:
                with self._folder(change.path) as (folder, base):
                    was = os.stat(base, dir_fd=folder, follow_symlinks=False)
                with contextlib.suppress(OSError):  # only root can change the owner
                    os.fchown(new.fileno(), was.st_uid, was.st_gid)
            os.fchmod(new.fileno(), after.mode & 0o777)

    def take_away(self, change: Change) -> None:
        """Move away what is removed or replaced."""
        one, other = change.before, change.after
        if one is None or (stat.S_ISDIR(one.kind) and other is not None and one[0] == other[0]):
            return
        if stat.S_ISDIR(one.kind):
            with self._folder(change.path) as (folder, base), _opened(base, folder) as inside:
                left = [name for name in os.listdir(inside) if name not in CACHES]
            if left:
                raise EnvironmentOpError(
                    f"{change.path} would be removed, but contains {left[0]}, which the copy did "
                    "not have",
                    code="CONFLICT",
                )
        self._moved += 1
        name = f"old-{self._moved}"
        self._move(change.path, name, away=True)
        self._undoing.append(functools.partial(self._move, change.path, name, away=False))

    def put(self, index: int, change: Change) -> None:
        """Put what is new in its place; folders come before their contents."""
        one, after = change.before, change.after
        if after is None:
            return
        if not stat.S_ISDIR(after.kind):
            name = f"new-{index}"
            self._move(change.path, name, away=False)
            self._undoing.append(functools.partial(self._move, change.path, name, away=True))
        elif one is None or one.kind != after.kind:
            with self._folder(change.path) as (folder, base):
                os.mkdir(base, after.mode & 0o777, dir_fd=folder)
            self._undoing.append(functools.partial(self._remove_folder, change.path))
        else:
            self._set_mode(change.path, after.mode)
            self._undoing.append(functools.partial(self._set_mode, change.path, one.mode))

    def undo(self) -> str:
        """Undo all steps, the last one first, and say what is left of them.

        If one cannot be undone, what was there before stays in the staging folder.
        """
        while self._undoing:
            try:
                self._undoing.pop()()
            except OSError:
                self._keep = True
        if self._keep:
            return f"not all could be put back; what was there before is in {self._name}"
        return "nothing was changed"

    def _move(self, path: str, name: str, *, away: bool) -> None:
        """Move between a path in the workspace and a name in the staging folder."""
        with self._folder(path) as (folder, base):
            if away:
                os.rename(base, name, src_dir_fd=folder, dst_dir_fd=self._stage)
            else:
                os.rename(name, base, src_dir_fd=self._stage, dst_dir_fd=folder)

    def _remove_folder(self, path: str) -> None:
        with self._folder(path) as (folder, base):
            os.rmdir(base, dir_fd=folder)

    def _set_mode(self, path: str, mode: int) -> None:
        with self._folder(path) as (folder, base), _opened(base, folder) as inside:
            os.fchmod(inside, mode & 0o777)

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[tuple[int, str]]:
        """A path's parent folder, opened part by part without following links, and its name."""
        *steps, base = path.split("/")
        at = os.dup(self._root)
        try:
            for step in steps:
                below = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            yield at, base
        finally:
            os.close(at)


@contextlib.contextmanager
def _opened(name: str, folder: int) -> Iterator[int]:
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        yield inside
    finally:
        os.close(inside)
