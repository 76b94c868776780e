"""Keeps a workspace's git repository, so that a command cannot destroy the history in it.

Before each command, what is in ``.git`` is linked into a folder outside the workspace. Git replaces
files rather than change them, so that a link keeps their content. If a command has removed what no
command of git removes, the repository is put back.

Covers: ``rm -rf .git``, also with ``git init`` after it, a removed folder of objects or refs, and a
    removed ``HEAD``. Branches, stashes, the index and unreachable objects come back, too.
Does not cover: what git does on request, such as deleting a branch; files overwritten in place;
    a repository of more than ``MOST_FILES`` files, or on another disk than the data folder and
    larger than ``MOST_COPIED``; repositories in folders below; ``.git`` as a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass, field

from agentcli.sandbox.removal import remove_abandoned

MOST_FILES = 100_000
MOST_COPIED = 256 << 20
"""Bytes."""

_PREFIX = "git-"
_UNSETTLED_NS = 100_000_000
"""A folder that has just changed may change again without a new date: those come from a clock that
ticks every few milliseconds."""

_Signature = tuple[int, int, int]


class _TooLargeError(Exception):
    """There is more than is kept."""


@dataclass
class _Folder:
    """A folder of the repository as it was when it was last listed."""

    changed_ns: int
    files: dict[str, _Signature] = field(default_factory=dict)
    below: list[str] = field(default_factory=list)


class Repository:
    """Keeps the repository in the folder ``git``, in a folder that it creates in ``store``."""

    def __init__(self, git: str, store: str) -> None:
        self._git = git
        self._store = store
        self._kept = ""  # the folder in ``store``, once something is kept
        self._folders: dict[str, _Folder] = {}  # by relative path
        self._whole = self._identity()
        self._count = self._copied = 0
        self._given_up = False

    def keep(self) -> None:
        """Keep it as it is now. What has not changed since the last time costs little."""
        self._whole = self._identity()
        if self._given_up or not all(self._whole[:3]):
            return
        try:
            if not self._kept:
                os.makedirs(self._store, mode=0o700, exist_ok=True)
                remove_abandoned(self._store, _PREFIX)
                self._kept = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=self._store)
            self._keep("")
        except (OSError, _TooLargeError):
            self._given_up = True
            self.close()

    def is_damaged(self) -> bool:
        """Whether what makes it a repository is missing or another since the last ``keep``."""
        if not self._kept:
            return False
        (*now, has_objects), (*before, had_objects) = self._identity(), self._whole
        return now != before or (had_objects and not has_objects)

    def put_back(self) -> None:
        """Put back what was kept and is not there.

        Raises:
            OSError: some of it cannot be put back.
        """
        for path, _, files in os.walk(self._kept):
            target = os.path.join(self._git, os.path.relpath(path, self._kept))
            os.makedirs(target, exist_ok=True)
            for name in files:
                if not os.path.lexists(os.path.join(target, name)):
                    self._link(os.path.join(path, name), os.path.join(target, name))
        self._folders.clear()
        self._whole = self._identity()

    def close(self) -> None:
        """Remove what is kept."""
        kept, self._kept = self._kept, ""
        if kept:
            shutil.rmtree(kept, ignore_errors=True)
        self._folders.clear()

    def _identity(self) -> tuple[int | None, int | None, bool, bool]:
        """What git never removes or replaces, and whether there are objects.

        Single objects come and go, but never all of them.
        """
        objects = os.path.join(self._git, "objects")
        some = any(_names(objects, ("info", "pack"))) or any(_names(f"{objects}/pack"))
        head = os.path.lexists(os.path.join(self._git, "HEAD"))
        found = (_inode(objects), _inode(os.path.join(self._git, "refs")))
        return *found, head, some

    def _keep(self, path: str) -> None:
        try:
            changed = os.stat(os.path.join(self._git, path)).st_mtime_ns
        except FileNotFoundError:
            return
        folder = self._folders.get(path)
        if folder is None or folder.changed_ns != changed:
            folder = self._list(path, changed, folder or _Folder(0))
            self._folders[path] = folder
        for name in folder.below:
            self._keep(f"{path}/{name}" if path else name)

    def _list(self, path: str, changed_ns: int, before: _Folder) -> _Folder:
        """List a folder, and make the kept one the same."""
        settled = time.time_ns() - changed_ns > _UNSETTLED_NS
        folder = _Folder(changed_ns if settled else 0)
        kept = os.path.join(self._kept, path)
        os.makedirs(kept, exist_ok=True)
        with os.scandir(os.path.join(self._git, path)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # git may be at work
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        folder.below.append(entry.name)
                    elif stat.S_ISREG(info.st_mode) and not entry.name.endswith(".lock"):
                        signature = (info.st_ino, info.st_mtime_ns, info.st_size)
                        if before.files.get(entry.name) != signature:
                            self._link(entry.path, os.path.join(kept, entry.name))
                        folder.files[entry.name] = signature
        self._count += len(folder.files) - len(before.files)
        if self._count > MOST_FILES:
            raise _TooLargeError
        for name in before.files.keys() - folder.files.keys():
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(kept, name))
        for name in set(before.below).difference(folder.below):
            self._forget(f"{path}/{name}" if path else name)
        return folder

    def _forget(self, path: str) -> None:
        for known in [name for name in self._folders if f"{name}/".startswith(f"{path}/")]:
            self._count -= len(self._folders.pop(known).files)
        shutil.rmtree(os.path.join(self._kept, path), ignore_errors=True)

    def _link(self, source: str, target: str) -> None:
        """Link a file to a new path, or copy it where that is not possible."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without links
            self._copied += os.path.getsize(source)
            if self._copied > MOST_COPIED:
                raise _TooLargeError from None
            shutil.copy2(source, target)


def _names(folder: str, without: tuple[str, ...] = ()) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name not in without]
    except OSError:
        return []


def _inode(path: str) -> int | None:
    """The inode of a folder; None if there is no folder."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_ino if stat.S_ISDIR(info.st_mode) else None
