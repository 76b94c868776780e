"""Scans a workspace folder by folder and finds what has changed since the last scan.

A scan makes as few system calls as possible, since a project may have 50,000 files: one ``stat``
for a known file; open, ``fstat``, read and close for a new one. Folders are opened by descriptor,
so that a folder replaced by a link in the meantime leads nowhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agentcli.environments.base import Changes
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import LARGEST, entry_of, open_below, open_folder
from agentcli.environments.ignoring import RULE_FILES, Ignoring
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch

DEEPEST = 200  # nested folders: more than any project has; Python's own stack ends at a thousand
_RACY_NS = 50_000_000  # a file may change again within one tick of the file system's clock

Signature = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, mode


class TooMany(Exception):
    """There are more files than permitted."""


class Node(NamedTuple):
    """What is known of a name. Without a signature, only reading it tells if it has changed."""

    entry: str
    signature: Signature | None


class Scan:
    """The files of ``root`` as last seen, without the paths ``own`` and this process's own output.

    Not thread-safe.
    """

    def __init__(self, root: str, own: Iterable[str], blobs: Blobs, watch: Watch) -> None:
        self.index: dict[str, dict[str, Node]] = {}
        """The contents of each folder; folders are relative to the root."""
        self.left_out: set[str] = set()
        """Ignored and too deep paths, folders with a trailing slash, without what is below them."""
        self.problem = ""
        """Why contents are no longer stored; empty while all is well."""
        self.limit = 0
        """How many bytes may be stored in total."""
        self.stopped = False
        """Set from another thread to stop a scan at the next folder."""
        self._root = root
        self._own = {os.path.split(path) for path in own}
        self._output = _redirected()
        self._blobs = blobs
        self._watch = watch
        self._rules: dict[str, Ignoring] = {}
        self._quiet = False
        self._before: dict[str, str] = {}
        self._after: dict[str, str] = {}
        self._count = 0
        self._most: int | None = None

    def first(self, most: int) -> None:
        """Scan everything, without reporting differences from the index as changes.

        Raises:
            TooMany: there are more than ``most`` files.
        """
        self._most, self._count = most, 0
        with self._unreported():
            self.everything()
        self._most = None

    def everything(self) -> None:
        """Scan everything for changes."""
        if self._watch.works:
            self._watch.changed()  # discards events, as this scan sees everything
        self.left_out.clear()
        fd = open_below(self._root, "")
        try:
            self._folder("", fd, Ignoring.at_root(self._root), deep=True)
        finally:
            os.close(fd)

    def one(self, folder: str) -> None:
        """Scan one folder, and new folders in it, for changes."""
        try:
            fd = open_below(self._root, folder)
        except OSError:
            return  # it is gone, which the scan of its parent finds
        try:
            above = Ignoring.at_root(self._root)
            if folder:
                above = self._rules.get(folder.rpartition("/")[0], above)
            if folder and folder not in self.index:
                return  # ignored now
            self._folder(folder, fd, above, deep=False)
        finally:
            os.close(fd)

    def take_changes(self) -> Changes:
        """The changes that scans have found since the last call."""
        before, after = self._before, self._after
        self._before, self._after = {}, {}
        same = [path for path in before if before[path] == after.get(path)]
        for path in same:  # created and removed again, or only touched
            del before[path], after[path]
        return Changes(before, after)

    def covers(self, path: str) -> bool:
        """Whether a scan would notice a change of this path, relative to the root."""
        folder, _, name = path.rpartition("/")
        rules = self._rules.get(folder)
        return rules is not None and not rules.leaves_out(self._full(folder), name, False)

    def known_above(self, path: str) -> str:
        """The nearest known folder above a path."""
        folder = path.rpartition("/")[0]
        while folder and folder not in self.index:
            folder = folder.rpartition("/")[0]
        return folder

    def forget(self) -> None:
        """Forget all folders, so that none is covered."""
        self.index.clear()
        self._rules.clear()

    # -- folders ----------------------------------------------------------------------------

    def _full(self, folder: str) -> str:
        return f"{self._root}/{folder}" if folder else self._root

    def _folder(self, folder: str, fd: int, above: Ignoring, *, deep: bool) -> None:
        """Scan one folder, and the new folders in it, or all of them if ``deep``."""
        if self.stopped:
            return
        self._watch.add(fd, folder)  # before listing, so that no change is missed
        with os.scandir(fd) as listing:
            items = list(listing)
        self._count += len(items)
        if self._most is not None and self._count > self._most:
            raise TooMany
        full = self._full(folder)
        own = {name for above, name in self._own if above == full}
        rules, before, changed_rules = self._rules_of(folder, items, above, deep=deep)
        deep = deep or changed_rules
        nodes = self.index.setdefault(folder, {})
        seen = set()
        for item in items:
            name = item.name
            if name in own:
                continue
            is_folder = item.is_dir(follow_symlinks=False)
            if self._is_output(item) or rules.leaves_out(full, name, is_folder):
                if name != ".git":
                    self.left_out.add(join(folder, name) + ("/" if is_folder else ""))
                if name in nodes:
                    with self._unreported():
                        self._gone(folder, name)  # newly ignored, not deleted
                continue
            seen.add(name)
            # A file that is no longer ignored is not new: undoing its creation would delete it.
            was_ignored = (
                name not in nodes
                and before is not None
                and before is not rules
                and before.leaves_out(full, name, is_folder)
            )
            try:
                if was_ignored:
                    with self._unreported():
                        self._visit(folder, fd, item, is_folder, nodes, deep=deep)
                else:
                    self._visit(folder, fd, item, is_folder, nodes, deep=deep)
            except (FileNotFoundError, NotADirectoryError):
                seen.discard(name)
            except OSError:
                continue  # unreadable, or changing right now: assume that it is as before
        for name in nodes.keys() - seen:
            self._gone(folder, name)

    def _rules_of(
        self, folder: str, items: list[os.DirEntry[str]], above: Ignoring, *, deep: bool
    ) -> tuple[Ignoring, Ignoring | None, bool]:
        """The rules here now and before, and whether an ignore file here has changed."""
        nodes = self.index.get(folder, {})
        files = {item.name: item for item in items if item.name in RULE_FILES}
        before = self._rules.get(folder)
        changed = any(
            (name in nodes) is not (name in files)
            or (name in files and not _is_as_known(files[name], nodes[name]))
            for name in RULE_FILES
        )
        if files and not changed and not deep and before is not None:
            rules = before
        else:
            rules = above.within(self._full(folder)) if files else above
        self._rules[folder] = rules
        return rules, before, changed

    # -- names ------------------------------------------------------------------------------

    def _visit(
        self,
        folder: str,
        fd: int,
        item: os.DirEntry[str],
        is_folder: bool,
        nodes: dict[str, Node],
        *,
        deep: bool,
    ) -> None:
        name, path, node = item.name, join(folder, item.name), nodes.get(item.name)
        if not is_folder:
            new = self._changed(fd, item, node)
            if new is not None:
                if node is not None and node.entry.startswith("dir"):
                    self._drop_below(path)
                nodes[name] = new
                self._note(path, node.entry if node else "", new.entry)
            return
        mode = stat.S_IMODE(item.stat(follow_symlinks=False).st_mode)
        nodes[name] = Node(f"dir {mode:o}", None)
        self._note(path, node.entry if node else "", nodes[name].entry)
        if path.count("/") >= DEEPEST:
            self.left_out.add(path + "/")
        elif deep or path not in self.index:
            below = open_folder(name, fd)
            try:
                self._folder(path, below, self._rules[folder], deep=deep)
            finally:
                os.close(below)

    def _changed(self, fd: int, item: os.DirEntry[str], node: Node | None) -> Node | None:
        """The new node of a name that is not a folder, or None if it has not changed."""
        if node is not None or not item.is_file(follow_symlinks=False):
            info = item.stat(follow_symlinks=False)
            if node is not None and node.signature == _signature(info):
                return None
            kind = stat.S_IFMT(info.st_mode)
        else:  # no stat yet: it is opened in any case
            kind = stat.S_IFREG
        room = -1 if self.problem else self.limit - self._blobs.kept_bytes
        try:
            entry, info = entry_of(fd, item.name, kind, self._blobs, most=min(LARGEST, room))
        except SnapshotError as error:
            self.problem = error.message
            entry, info = entry_of(fd, item.name, kind, self._blobs, most=-1)
        if room < info.st_size and kind == stat.S_IFREG and not self.problem:
            self.problem = "checkpoints take up 2 GiB, or a quarter of the free disk space"
        newest = max(info.st_mtime_ns, info.st_ctime_ns)
        racy = time.time_ns() - newest < _RACY_NS  # if so, the next scan reads it again
        return Node(entry, None if racy else _signature(info)) if entry else None

    def _is_output(self, item: os.DirEntry[str]) -> bool:
        if item.inode() not in self._output:
            return False
        try:
            return item.stat(follow_symlinks=False).st_dev == self._output[item.inode()]
        except OSError:
            return False

    def _gone(self, folder: str, name: str) -> None:
        node = self.index[folder].pop(name)
        path = join(folder, name)
        if node.entry.startswith("dir"):
            self._drop_below(path)
        self._note(path, node.entry, "")

    def _drop_below(self, folder: str) -> None:
        for name in list(self.index.get(folder, ())):
            self._gone(folder, name)
        self.index.pop(folder, None)
        self._rules.pop(folder, None)

    # -- changes ----------------------------------------------------------------------------

    def _note(self, path: str, before: str, after: str) -> None:
        if self._quiet or before == after:
            return
        if before and path not in self._before and path not in self._after:
            self._before[path] = before
        if after:
            self._after[path] = after
        else:
            self._after.pop(path, None)

    @contextlib.contextmanager
    def _unreported(self) -> Iterator[None]:
        """Record what is found inside the ``with`` block as known, not as a change."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def join(folder: str, name: str) -> str:
    """Join a folder (relative to the root) and a name in it."""
    return f"{folder}/{name}" if folder else name


def _redirected() -> dict[int, int]:
    """Inode and device of each file that this process's own output goes to."""
    found = {}
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            info = os.fstat(stream)
            if stat.S_ISREG(info.st_mode):
                found[info.st_ino] = info.st_dev
    return found


def _is_as_known(item: os.DirEntry[str], node: Node) -> bool:
    try:
        return node.signature == _signature(item.stat(follow_symlinks=False))
    except OSError:  # gone since the folder was listed
        return False


def _signature(info: os.stat_result) -> Signature:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode)
