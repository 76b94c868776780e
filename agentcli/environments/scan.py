"""Scans a workspace folder by folder and finds what has changed since the last scan.

A scan makes as few system calls as possible, since a project may have 50,000 files: one ``stat``
for a known file; open, ``fstat``, read and close for a new one. Folders are opened by descriptor,
so a folder that was replaced by a link meanwhile leads nowhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

from agentcli.environments.base import Changes
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import LARGEST, entry_of, open_below, open_folder
from agentcli.environments.ignoring import RULE_FILES, Ignoring
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch

DEEPEST = 200  # folders in folders; nobody's project, and Python's own stack ends at a thousand
_RACY_NS = 50_000_000  # a file may change again within one tick of the clock that stamps it

Signature = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, mode


class TooMany(Exception):
    """There are more files than were asked for."""


class Node(NamedTuple):
    """What is known of a name; without a signature, only reading tells whether it has changed."""

    entry: str
    signature: Signature | None


class Scan:
    """The files of ``root`` as they were last seen; ``own``, a path, is not a part of them.

    Nothing in it is safe to be called from two threads at a time.
    """

    def __init__(self, root: str, own: str, blobs: Blobs, watch: Watch) -> None:
        self.index: dict[str, dict[str, Node]] = {}
        """Of each folder, relative to the root, what is in it."""
        self.left_out: set[str] = set()
        """What is ignored or too deep, folders with a slash at the end; not what is below them."""
        self.problem = ""
        """Why contents are no longer kept; empty while all is well."""
        self.limit = 0
        """Bytes that may be kept in all."""
        self.stopped = False
        """Set from another thread to end a look at the next folder."""
        self._root = root
        self._own = os.path.split(own)
        self._blobs = blobs
        self._watch = watch
        self._rules: dict[str, Ignoring] = {}
        self._quiet = False
        self._before: dict[str, str] = {}
        self._after: dict[str, str] = {}
        self._count = 0
        self._most: int | None = None

    def first(self, most: int) -> None:
        """Look at everything; what differs from the index is no news.

        Raises:
            TooMany: there are more than ``most`` files.
        """
        self._most, self._count = most, 0
        with self._quietly():
            self.everything()
        self._most = None

    def everything(self) -> None:
        """Compare everything with what is known."""
        if self._watch.works:
            self._watch.changed()  # all of it is seen now
        self.left_out.clear()
        fd = open_below(self._root, "")
        try:
            self._folder("", fd, Ignoring.at_root(self._root), deep=True)
        finally:
            os.close(fd)

    def one(self, folder: str) -> None:
        """Compare what is in one folder, and in new ones below it, with what is known."""
        try:
            fd = open_below(self._root, folder)
        except OSError:
            return  # it is gone: the folder above tells
        try:
            above = Ignoring.at_root(self._root)
            if folder:
                above = self._rules.get(folder.rpartition("/")[0], above)
            if folder and folder not in self.index:
                return  # ignored by now
            self._folder(folder, fd, above, deep=False)
        finally:
            os.close(fd)

    def news(self) -> Changes:
        """What the looks since the last call found changed."""
        before, after = self._before, self._after
        self._before, self._after = {}, {}
        same = [path for path in before if before[path] == after.get(path)]
        for path in same:  # made and unmade, or touched
            del before[path], after[path]
        return Changes(before, after)

    def covers(self, path: str) -> bool:
        """Whether a look would notice a change of this path, relative to the root."""
        folder, _, name = path.rpartition("/")
        rules = self._rules.get(folder)
        return rules is not None and not rules.leaves_out(self._full(folder), name, False)

    def known_above(self, path: str) -> str:
        """The nearest folder above a path of which something is known."""
        folder = path.rpartition("/")[0]
        while folder and folder not in self.index:
            folder = folder.rpartition("/")[0]
        return folder

    def forget(self) -> None:
        """Know nothing of any folder, and so cover none."""
        self.index.clear()
        self._rules.clear()

    # -- folders ----------------------------------------------------------------------------

    def _full(self, folder: str) -> str:
        return f"{self._root}/{folder}" if folder else self._root

    def _folder(self, folder: str, fd: int, above: Ignoring, *, deep: bool) -> None:
        """Compare one folder with what is known; new folders in it, or all, likewise."""
        if self.stopped:
            return
        self._watch.add(fd, folder)  # first, so that nothing falls between
        with os.scandir(fd) as listing:
            items = list(listing)
        self._count += len(items)
        if self._most is not None and self._count > self._most:
            raise TooMany
        full = self._full(folder)
        own = self._own[1] if full == self._own[0] else None
        rules, before, changed_rules = self._rules_of(folder, items, above, deep=deep)
        deep = deep or changed_rules
        nodes = self.index.setdefault(folder, {})
        seen = set()
        for item in items:
            name = item.name
            if name == own:
                continue
            is_folder = item.is_dir(follow_symlinks=False)
            if rules.leaves_out(full, name, is_folder):
                if name != ".git":
                    self.left_out.add(join(folder, name) + ("/" if is_folder else ""))
                if name in nodes:
                    with self._quietly():
                        self._gone(folder, name)  # ignored from now on: not deleted
                continue
            seen.add(name)
            # What was ignored so far is not new: to undo its making would be to delete it.
            silent = before is not None and before is not rules and name not in nodes
            try:
                if silent and before is not None and before.leaves_out(full, name, is_folder):
                    with self._quietly():
                        self._meet(folder, fd, item, is_folder, nodes, deep=deep)
                else:
                    self._meet(folder, fd, item, is_folder, nodes, deep=deep)
            except (FileNotFoundError, NotADirectoryError):
                seen.discard(name)
            except OSError:
                continue  # unreadable or in motion: as it was
        for name in nodes.keys() - seen:
            self._gone(folder, name)

    def _rules_of(
        self, folder: str, items: list[os.DirEntry[str]], above: Ignoring, *, deep: bool
    ) -> tuple[Ignoring, Ignoring | None, bool]:
        """What is ignored here now and was before, and whether a file that says so has changed."""
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

    def _meet(
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
        """What stands under a name that is no folder, unless it is what was there."""
        if node is not None or not item.is_file(follow_symlinks=False):
            info = item.stat(follow_symlinks=False)
            if node is not None and node.signature == _signature(info):
                return None
            kind = stat.S_IFMT(info.st_mode)
        else:  # it is opened in any case, and asked then
            kind = stat.S_IFREG
        room = -1 if self.problem else self.limit - self._blobs.kept_bytes
        try:
            entry, info = entry_of(fd, item.name, kind, self._blobs, most=min(LARGEST, room))
        except SnapshotError as error:
            self.problem = error.message
            entry, info = entry_of(fd, item.name, kind, self._blobs, most=-1)
        if room < info.st_size and kind == stat.S_IFREG and not self.problem:
            self.problem = "checkpoints hold 2 GiB, or a quarter of what was free on the disk"
        newest = max(info.st_mtime_ns, info.st_ctime_ns)
        racy = time.time_ns() - newest < _RACY_NS  # the next look reads it again
        return Node(entry, None if racy else _signature(info)) if entry else None

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

    # -- what is told -----------------------------------------------------------------------

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
    def _quietly(self) -> Iterator[None]:
        """What is found meanwhile is known from then on, and no news."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def join(folder: str, name: str) -> str:
    """A name in a folder, both relative to the root."""
    return f"{folder}/{name}" if folder else name


def _is_as_known(item: os.DirEntry[str], node: Node) -> bool:
    try:
        return node.signature == _signature(item.stat(follow_symlinks=False))
    except OSError:  # it is gone since the folder was listed
        return False


def _signature(info: os.stat_result) -> Signature:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode)
