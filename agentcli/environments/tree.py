"""Copies a workspace's tree, and finds out later what has changed in the copy or the original.

A tree is everything that is not ignored, plus small ignored files. Folders that are left out
(ignored ones and ``.git``) are listed, so that they can be mounted read-only in the copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from agentcli.environments.worker import excluded, ignored, rules_in
from agentcli.errors import SandboxError

if TYPE_CHECKING:
    from agentcli.environments.worker import Rule

FICLONE = 0x40049409  # linux/fs.h: two files share their data until one of them is written
MOST_BYTES = 512 << 20
"""The most to copy byte by byte; shared blocks have no such limit."""
MOST_FILES = 50_000
SMALL_BYTES = 1 << 20
"""The largest ignored file that is copied."""

KINDS = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK))
"""What is copied; pipes, sockets and devices are not."""

CACHES = frozenset(("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"))
_APART = frozenset((".git", "node_modules", ".venv", "venv"))
"""Left out of a copy even if no rule ignores them."""


class Stamp(NamedTuple):
    """What shows whether a file has changed."""

    kind: int
    mode: int
    size: int
    mtime_ns: int
    inode: int


@dataclass
class Tree:
    """Relative names of files, links and folders, with their stamps. ``apart`` is left out.

    ``others`` are pipes, sockets and devices, which are never copied, in either direction.
    """

    entries: dict[str, Stamp] = field(default_factory=dict)
    apart: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.entries.values())


def stamp(info: os.stat_result) -> Stamp:
    """The stamp from ``lstat``; for a folder, only kind and mode count."""
    kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
    if stat.S_ISDIR(info.st_mode):
        return Stamp(kind, mode, 0, 0, 0)
    return Stamp(kind, mode, info.st_size, info.st_mtime_ns, info.st_ino)


def survey(root: str, *, apart: tuple[str, ...] | None = None) -> Tree:
    """List a tree. With ``apart``, only those folders are left out, and ignore rules are not read.

    Raises:
        OSError: a folder cannot be read.
    """
    tree = Tree()
    for name, info in _walk(root, tree, apart):
        if stat.S_IFMT(info.st_mode) in KINDS:
            tree.entries[name] = stamp(info)
        else:
            tree.others.append(name)
    return tree


def _walk(
    root: str, tree: Tree, apart: tuple[str, ...] | None
) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry that is not left out, with folders before their contents."""
    pending: list[tuple[str, list[Rule]]] = [("", excluded(root) if apart is None else [])]
    while pending:
        folder, rules = pending.pop()
        full = os.path.join(root, folder)
        if apart is None:
            rules = rules + rules_in(full)
        with os.scandir(full) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if apart is not None:
                out = name in apart or entry.name in CACHES
            else:
                out = entry.name in _APART or entry.name in CACHES
                if entry.is_symlink():
                    out = False
                elif not out and ignored(rules, entry.path, is_folder):
                    out = is_folder or info.st_size > SMALL_BYTES
            if out:
                if entry.name not in CACHES:
                    tree.apart.append(name)
                continue
            yield name, info
            if is_folder:
                pending.append((name, rules))


class TooLarge(SandboxError):
    """The workspace is too large to copy; an overlay costs the same for any size."""


def copy(tree: Tree, root: str, target: str) -> None:
    """Copy a tree that was just surveyed into the empty folder ``target``.

    Raises:
        TooLarge: the tree is too large; raised before anything is copied, if that is foreseeable.
        OSError: something cannot be read or written.
    """
    shares = _Sharing()
    total = 0
    if len(tree.entries) > MOST_FILES:
        raise TooLarge(f"the workspace has more than {MOST_FILES} files, too many to copy")
    if tree.size > MOST_BYTES and not can_share(root, target):
        raise _too_much()
    for name, known in tree.entries.items():
        source, copied = os.path.join(root, name), os.path.join(target, name)
        if stat.S_ISDIR(known.kind):
            os.mkdir(copied)
        elif stat.S_ISLNK(known.kind):
            os.symlink(os.readlink(source), copied)
        else:
            total += 0 if shares.clone(source, copied) else _copy_file(source, copied)
            if total > MOST_BYTES:
                raise _too_much()
            os.chmod(copied, known.mode)
            os.utime(copied, ns=(known.mtime_ns, known.mtime_ns))
    for name, known in reversed(tree.entries.items()):
        if stat.S_ISDIR(known.kind):  # last, since a folder may be read-only
            os.chmod(os.path.join(target, name), known.mode | stat.S_IRWXU)


def _too_much() -> TooLarge:
    return TooLarge(
        f"the workspace holds more than {MOST_BYTES >> 20} MiB, too much to copy",
        hint="name large files that the tests do not need in .gitignore",
    )


class _Sharing:
    """Tries to share blocks, until the file system shows that it cannot."""

    def __init__(self) -> None:
        self.works = sys.platform == "linux"

    def clone(self, source: str, target: str) -> bool:
        if not self.works:
            return False
        with open(source, "rb") as old, open(target, "xb") as new:
            try:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.ENOSYS):
                    self.works = False
                return False
        return True


def _copy_file(source: str, target: str) -> int:
    with open(source, "rb") as old, open(target, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        return new.tell()


def can_share(root: str, folder: str) -> bool:
    """Whether new files in ``folder`` can share blocks with files of ``root``."""
    if sys.platform != "linux" or os.stat(root).st_dev != os.stat(folder).st_dev:
        return False
    probe = os.path.join(folder, f".probe-{os.getpid()}")
    sharing = _Sharing()
    try:
        with open(probe, "wb") as file:
            file.write(b"x" * 8192)
        return sharing.clone(probe, f"{probe}-2")
    except OSError:
        return False
    finally:
        for path in (probe, f"{probe}-2"):
            with contextlib.suppress(OSError):
                os.unlink(path)
