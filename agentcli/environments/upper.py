"""Reads the changes on an overlay of a workspace from its upper folder.

Files and links are there in their present state. A character device 0/0 marks a removed entry; an
attribute marks a folder that hides the one below (kernel: Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from agentcli.environments.effects import Change
from agentcli.environments.tree import CACHES, KINDS, Tree, stamp

_OPAQUE = "user.overlay.opaque"


def changes(before: Tree, upper: str) -> tuple[list[Change], list[str]]:
    """The changes on an overlay, sorted, and the names of pipes, sockets and devices.

    ``before`` is the tree as it was; what it leaves out is ignored here too.

    Raises:
        OSError: a folder cannot be read.
    """
    found: dict[str, Change] = {}
    others: list[str] = []
    names = sorted(before.entries)
    apart = frozenset(before.apart)
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in _scan(os.path.join(upper, folder)):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if name in apart or entry.name in CACHES:
                continue
            info = entry.stat(follow_symlinks=False)
            old = before.entries.get(name)
            new = stamp(info) if stat.S_IFMT(info.st_mode) in KINDS else None
            if new is None and not _is_whiteout(info):
                others.append(name)
            found[name] = Change(name, old, new)
            is_folder = new is not None and stat.S_ISDIR(new.kind)
            if old is not None and stat.S_ISDIR(old.kind) and not (is_folder and _merges(entry)):
                for below in _below(names, name):
                    found[below] = Change(below, before.entries[below], None)
            if is_folder:
                pending.append(name)
    told = (found[name] for name in sorted(found))
    return [one for one in told if one.before is not None or one.after is not None], others


def _scan(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _merges(entry: os.DirEntry[str]) -> bool:
    """Whether a folder still shows the contents of the one below."""
    try:
        return os.getxattr(entry.path, _OPAQUE) != b"y"
    except OSError:  # there is no such attribute
        return True


def _below(names: Sequence[str], folder: str) -> Sequence[str]:
    """The part of the sorted names that is in the folder."""
    return names[bisect_left(names, f"{folder}/") : bisect_left(names, f"{folder}0")]
