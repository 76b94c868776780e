"""Keeps a workspace's git repository, so that a command cannot destroy the history in it.

Before each command, what is in ``.git`` is linked into a folder outside the workspace. Git replaces
files rather than change them, so that a link keeps their content. If a command has removed what no
command of git removes, the repository is put back.

Covers: ``rm -rf .git``, also with ``git init`` after it; removing all objects, all refs, ``HEAD``,
    packs, or the branch in use. The other branches, stashes and the index come back with it.
Does not cover: what git does on request, such as deleting a branch; single loose objects or refs;
    files overwritten in place; what git itself protects elsewhere (``.git`` as a file or a link, a
    repository in a folder below); a repository of more than ``MOST_FILES`` files, or on another
    disk than the data folder and larger than ``MOST_COPIED``; the hooks and the configuration,
    which ``restore.py`` keeps.
If the process is killed before it could put a repository back, what it kept stays.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from agentcli.sandbox.removal import remove
from agentcli.sandbox.tree import is_running

MOST_FILES = 100_000
MOST_COPIED = 256 << 20
"""Bytes."""

_PREFIX = "git-"
_OF, _TREE = "of", "git"  # in the folder of one process: whose repository it is, and its files
_LEFT_OUT = frozenset(("hooks", "config", "config.worktree", "commondir"))
_SOME = 100
_UNSETTLED_NS = 2_500_000_000
"""A folder that has just changed may change again without a new date: some disks date to a second,
and all use a clock that ticks every few milliseconds."""

_Signature = tuple[int, int, int]


class _TooLargeError(Exception):
    """There is more than is kept."""


@dataclass(frozen=True)
class _Marks:
    """What tells that a repository is whole. The branch is the one that HEAD names."""

    objects: int  # the folder's inode
    head: bytes
    has_objects: bool
    has_packs: bool
    has_refs: bool
    has_logs: bool
    branch: bool
    branch_log: bool


@dataclass
class _Folder:
    """A folder as it was when it was last listed."""

    changed_ns: int
    mode: int = 0
    files: dict[str, _Signature] = field(default_factory=dict)
    below: list[str] = field(default_factory=list)


class Repository:
    """Keeps the repository in the folder ``git``, in a folder that it creates in ``store``."""

    def __init__(self, git: str, store: str) -> None:
        self._git = git
        self._store = store
        self._kept = ""  # the folder in ``store``, once something is kept
        self._marks: _Marks | None = None
        self._folders: dict[str, _Folder] = {}  # by relative path
        self._files: set[str] = set()  # relative paths of what is to be put back
        self._copied: dict[str, int] = {}  # sizes of those that could not be linked
        self._failed = False  # it could not be put back so far
        # In a home folder that is a repository, git would find what is kept.
        root = os.path.dirname(git)
        self._given_up = os.path.commonpath((root, os.path.abspath(store))) == root

    def keep(self, *, busy: bool = False) -> None:
        """Keep it as it is now. What has not changed since the last time costs little.

        ``busy``: commands are running, so that what is missing may be the beginning of damage.
        """
        if self._given_up or self._failed:
            return
        if self.is_damaged():
            if busy:
                return
            self.close()  # no command did that, so it was meant
        marks = _marks(self._git)
        if marks is None:
            return
        try:
            if not self._kept:
                self._begin()
            self._keep(busy)
            self._marks = marks
        except (OSError, _TooLargeError):
            self._given_up = True
            self.close()

    def is_damaged(self) -> bool:
        """Whether what git never removes is missing since the last ``keep``."""
        before, now = self._marks, _marks(self._git)
        if before is None or os.path.isfile(self._git):  # moved elsewhere by git itself
            return False
        if now is None:
            return True
        # Where git deletes a ref, such as the first commit's, it deletes the ref's log, too.
        return (
            (now.objects != before.objects and self._has_lost_objects())
            or (now.has_refs and before.has_objects and not now.has_objects)
            or (before.has_packs and not now.has_packs)
            or (before.has_refs and not now.has_refs and now.has_logs)
            or (now.head == before.head and before.branch and not now.branch and now.branch_log)
        )

    def put_back(self) -> None:
        """Put back what was kept and is not there.

        Raises:
            OSError: it cannot be put back; what was kept stays.
        """
        self._failed = True
        tree = os.path.join(self._kept, _TREE)
        os.makedirs(self._git, exist_ok=True)
        for path in self._files:
            target = os.path.join(self._git, path)
            with contextlib.suppress(FileExistsError, NotADirectoryError):  # another kind is there
                if not os.path.lexists(target):
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    _link(os.path.join(tree, path), target)
        for path in sorted(self._folders, reverse=True):
            target = os.path.join(self._git, path)
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                os.makedirs(target, exist_ok=True)
                os.chmod(target, self._folders[path].mode)
        marks = _marks(self._git)
        if marks is None:
            raise FileNotFoundError(errno.ENOENT, "what was kept is gone")
        self._marks = marks
        self._folders.clear()
        self._failed = False

    @property
    def kept(self) -> str:
        """The folder with what is kept."""
        return self._kept

    def close(self) -> None:
        """Remove what is kept, unless it is still needed."""
        kept, self._kept = self._kept, ""
        if kept and not self._failed:
            remove(kept)
        self._marks = None
        self._folders.clear()
        self._files.clear()
        self._copied.clear()

    def _begin(self) -> None:
        os.makedirs(self._store, mode=0o700, exist_ok=True)
        _sweep(self._store)
        self._kept = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=self._store)
        with open(os.path.join(self._kept, _OF), "w", encoding="utf-8") as file:
            file.write(self._git)

    def _keep(self, busy: bool) -> None:
        # Git writes objects before it names them in refs, so they are read after these.
        waiting = ["objects", ""]
        while waiting:
            path = waiting.pop()
            try:
                info = os.stat(os.path.join(self._git, path))
                folder = self._folders.get(path)
                if folder is None or folder.changed_ns != info.st_mtime_ns:
                    folder = self._list(path, info, folder or _Folder(0), busy)
                    self._folders[path] = folder
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # git may be at work
            if len(self._files) + len(self._folders) > MOST_FILES:
                raise _TooLargeError
            skipped = ("objects", *_LEFT_OUT) if not path else ()
            waiting += [_join(path, name) for name in folder.below if name not in skipped]

    def _list(self, path: str, info: os.stat_result, before: _Folder, busy: bool) -> _Folder:
        """List a folder, and keep what is new there."""
        settled = abs(time.time_ns() - info.st_mtime_ns) > _UNSETTLED_NS
        folder = _Folder(info.st_mtime_ns if settled else 0, stat.S_IMODE(info.st_mode))
        _make_folder(os.path.join(self._kept, _TREE, path))
        with os.scandir(os.path.join(self._git, path)) as entries:
            for entry in entries:
                if entry.name in _LEFT_OUT and not path:
                    continue
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        folder.below.append(entry.name)
                    elif not stat.S_ISSOCK(info.st_mode) and not entry.name.endswith(".lock"):
                        signature = (info.st_ino, info.st_mtime_ns, info.st_size)
                        if before.files.get(entry.name) != signature:
                            self._add(_join(path, entry.name))
                        folder.files[entry.name] = signature
        # Objects that git has packed or dropped do no harm; refs that it has deleted would.
        if not busy and path.partition("/")[0] != "objects":
            gone = [*(before.files.keys() - folder.files.keys()), *before.below]
            for name in gone:
                if name not in folder.below:
                    self._forget(_join(path, name))
        return folder

    def _add(self, path: str) -> None:
        source, target = os.path.join(self._git, path), os.path.join(self._kept, _TREE, path)
        if os.path.isdir(target) and not os.path.islink(target):
            remove(target)
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        self._copied.pop(path, None)
        if size := _link(source, target):
            self._copied[path] = size
            if sum(self._copied.values()) > MOST_COPIED:
                raise _TooLargeError
        self._files.add(path)

    def _has_lost_objects(self) -> bool:
        objects = (path for path in self._files if path.startswith("objects/"))
        some = itertools.islice(objects, _SOME)
        return not all(os.path.exists(os.path.join(self._git, path)) for path in some)

    def _forget(self, path: str) -> None:
        inside = f"{path}/"
        for known in [one for one in self._files if one == path or one.startswith(inside)]:
            self._files.remove(known)
            self._copied.pop(known, None)
        for known in [one for one in self._folders if one == path or one.startswith(inside)]:
            del self._folders[known]


def _marks(git: str) -> _Marks | None:
    """None if there is no whole repository."""
    try:
        if not stat.S_ISDIR(os.lstat(git).st_mode):
            return None
        objects = os.stat(os.path.join(git, "objects"))
        with open(os.path.join(git, "HEAD"), "rb") as file:
            head = file.read(4096).strip()
    except OSError:
        return None
    reftable = os.path.isdir(os.path.join(git, "reftable"))
    refs = os.path.join(git, "refs")
    if not head or not stat.S_ISDIR(objects.st_mode) or not (reftable or os.path.isdir(refs)):
        return None
    try:
        with open(os.path.join(git, "packed-refs"), "rb") as file:
            packed = file.read()
    except OSError:
        packed = b""
    has_packs = any(_packs(os.path.join(git, "objects", "pack")))
    name = head.removeprefix(b"ref: ")
    branch, log = (os.path.join(os.fsencode(git), *more, name) for more in ((), (b"logs",)))
    return _Marks(
        objects.st_ino,
        head,
        has_packs or any(_loose(os.path.join(git, "objects"))),
        has_packs,
        reftable
        or any(line[:1] not in (b"", b"#") for line in packed[:4096].split(b"\n"))
        or _has_files(refs),
        _has_files(os.path.join(git, "logs", "refs")),
        reftable or name == head or b" " + name + b"\n" in packed or os.path.exists(branch),
        os.path.exists(log),
    )


def _has_files(folder: str) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _packs(folder: str) -> Iterator[bool]:
    with contextlib.suppress(OSError):
        yield from (name.endswith(".pack") for name in os.listdir(folder))


def _loose(objects: str) -> Iterator[bool]:
    """Whether there is an object in each of the folders that may hold some."""
    try:
        for name in os.listdir(objects):
            if len(name) == 2:
                yield bool(os.listdir(os.path.join(objects, name)))
    except PermissionError:
        yield True  # nobody can tell


def _link(source: str, target: str) -> int:
    """Link to a file, or copy it where that is impossible; returns how many bytes were copied."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without links, or another user's file
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        else:
            shutil.copy2(source, target)
            return os.path.getsize(target)
    return 0


def _make_folder(path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        os.remove(path)
    os.makedirs(path, exist_ok=True)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _sweep(store: str) -> None:
    """Remove what killed processes have left, except what may still be needed."""
    for name in os.listdir(store):
        kept = os.path.join(store, name)
        pid = name.removeprefix(_PREFIX).partition("-")[0]
        if not name.startswith(_PREFIX) or not pid.isdigit() or is_running(int(pid)):
            continue
        with contextlib.suppress(OSError):
            with open(os.path.join(kept, _OF), encoding="utf-8") as file:
                git = file.read()
            if os.path.isdir(os.path.dirname(git)) and _marks(git) is None:
                continue
        remove(kept)
