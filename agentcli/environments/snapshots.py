"""Checkpoints of a workspace, kept outside of it: what was there before a tool changed it.

Covers: files, their executable bits, links, deletions, renames and empty folders, whatever their
    names and contents, also where a command changed them. No git is needed, and none is touched:
    neither the project's index nor its hooks, filters or line endings have a say.
Does not cover: what the project ignores and known caches (``left_out`` names them), ``.git``, the
    content of files over 16 MiB and of those that cannot be read, owners and extended attributes.
    An ignored file that a file tool writes is covered all the same.

The first look (``take``) reads every file once, in a thread beside the model's first answer; the
next session of the same workspace reads only what differs in size, times, inode or mode. After
that a look costs what has changed: inotify says in which folders (else every file is asked for its
state again). A project of 50,000 files: ``bench/snapshots.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agentcli.environments.base import Changes
from agentcli.environments.blobs import Blobs, digest_of
from agentcli.environments.entries import (
    UNKEPT,
    Entry,
    capture,
    entry_of,
    open_below,
    open_folder,
)
from agentcli.environments.ignoring import RULE_FILES, Ignoring
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch

INDEX = "index.jsonl"
_ROOM = 2 << 30  # bytes of one workspace that are kept at most, and a quarter of what is free
_MOST = 400_000  # files of one workspace
_RACY_NS = 50_000_000  # a file may change again within one tick of the clock that stamps it

_Signature = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, mode


class _TooMany(Exception):
    pass


class _Node(NamedTuple):
    entry: str
    signature: _Signature | None


def folder_of(data: Path, workspace: str) -> Path:
    """Where the checkpoints of a workspace are, below the data folder."""
    return data / "snapshots" / digest_of(os.fsencode(workspace))[:16]


class Snapshots:
    """What is known of one workspace. ``folder`` holds the contents and the last look."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = os.path.realpath(root)
        self.blobs = Blobs(folder)
        self.problem = ""
        """Why contents are no longer kept; empty while all is well."""
        self._folder = folder
        # Where the data folder lies in the workspace, it is not a part of it.
        self._own = os.path.split(os.path.realpath(folder.parent.parent))
        self._index: dict[str, dict[str, _Node]] = {}
        self._rules: dict[str, Ignoring] = {}
        self._left_out: set[str] = set()
        self._watch = Watch()
        self._lock = threading.Lock()
        self._looking = asyncio.Lock()
        self._taking: asyncio.Future[None] | None = None
        self._closing = False
        self._before: dict[str, str] = {}
        self._after: dict[str, str] = {}
        self._room = _ROOM
        self._count = 0
        self._off = False
        self.taken = ""
        """The digest of the list of all files as the first look found them."""

    # -- for the event loop -----------------------------------------------------------------

    def begin(self) -> None:
        """Take the first look in a thread; ``ready`` waits for it."""
        if self._taking is None:
            self._taking = asyncio.ensure_future(asyncio.to_thread(self.take))

    async def ready(self) -> None:
        """Wait until everything is known, and begin if nobody has."""
        self.begin()
        assert self._taking is not None
        await asyncio.shield(self._taking)

    @property
    def begun(self) -> bool:
        """Whether there is anything to compare with."""
        return self._taking is not None

    @property
    def watches(self) -> bool:
        """Whether a look costs only what has changed."""
        return self._watch.works

    async def changes(self, near: str | None = None) -> Changes:
        """What has changed since the last look.

        ``near``, a path relative to the root, is all that is looked at where a look at everything
        would cost more.
        """
        await self.ready()
        async with self._looking:
            folders = self._watch.changed()
            if folders is None and near is not None:
                folders = {self._known_above(near)}
            if folders is not None and not folders:
                return Changes()
            return await asyncio.to_thread(self.look, folders)

    async def aclose(self) -> None:
        """Keep what is known for the next session and let go of everything."""
        self._closing = True
        if self._taking is not None:
            await asyncio.wait([self._taking])
        await asyncio.to_thread(self.close)

    # -- the work itself --------------------------------------------------------------------

    def take(self) -> None:
        """Look at everything once; afterwards ``look`` tells what changed."""
        with self._lock:
            self.blobs.places()  # tells how much is kept already
            free = shutil.disk_usage(_existing(self._folder)).free
            self._room = min(_ROOM - self.blobs.kept_bytes, free // 4)
            self._load()
            self._count = 0
            try:
                self._all()
            except _TooMany:
                self._give_up()
            self._before.clear()
            self._after.clear()
        if not self._closing and not self._off:
            self.taken = self.tree()

    def look(self, folders: Iterable[str] | None = None) -> Changes:
        """What differs from the last look; ``folders`` are the only ones where it can be."""
        with self._lock:
            if self._off:
                return Changes()
            if folders is None:
                self._all()
            else:
                for folder in sorted(folders):
                    self._one(folder)
            before, after = self._before, self._after
            self._before, self._after = {}, {}
            with self._keeping():
                self.blobs.flush()
            same = [path for path in before if before[path] == after.get(path)]
            for path in same:  # made and unmade, or touched
                del before[path], after[path]
            return Changes(before, after)

    def covers(self, path: str) -> bool:
        """Whether a look would notice a change of this path, relative to the root."""
        folder, _, name = path.rpartition("/")
        rules = self._rules.get(folder)
        return rules is not None and not rules.leaves_out(self._full(folder), name, False)

    def capture(self, path: str) -> str:
        """What stands at a path now, its content kept, whether a look covers it or not."""
        with self._keeping():
            return capture(self.root, path, self.blobs)
        return ""

    def tree(self) -> str:
        """The digest of all that is known, for ``files_of``; its content is kept."""
        with self._lock, self._keeping():
            names = (
                f"{_join(folder, name)}\0{node.entry}\0"
                for folder, nodes in self._index.items()
                for name, node in nodes.items()
            )
            text = "".join(names).encode("utf-8", "surrogateescape")
            digest = self.blobs.put(zlib.compress(text, 1))
            self.blobs.flush()
            return digest
        return ""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the project ignores, folders with a slash at the end; not what is below them."""
        return tuple(sorted(self._left_out))

    def close(self) -> None:
        """Keep the index and let go of everything."""
        with self._lock:
            self._watch.close()
            with self._keeping():
                if self.taken:
                    self._save()
                self.blobs.close()

    # -- looking ----------------------------------------------------------------------------

    def _give_up(self) -> None:
        """Keep only what file tools are about to change."""
        self._off = True
        self.problem = f"{self.root} holds more than {_MOST:,} files"
        self._watch.close()
        self._index.clear()
        self._rules.clear()

    def _full(self, folder: str) -> str:
        return f"{self.root}/{folder}" if folder else self.root

    def _known_above(self, path: str) -> str:
        folder = path.rpartition("/")[0]
        while folder and folder not in self._index:
            folder = folder.rpartition("/")[0]
        return folder

    def _all(self) -> None:
        if self._watch.works:
            self._watch.changed()  # all of it is seen now
        self._left_out.clear()
        fd = open_below(self.root, "")
        try:
            self._scan("", fd, Ignoring.at_root(self.root), deep=True)
        finally:
            os.close(fd)

    def _one(self, folder: str) -> None:
        try:
            fd = open_below(self.root, folder)
        except OSError:
            return  # it is gone: the folder above tells
        try:
            above = Ignoring.at_root(self.root)
            if folder:
                above = self._rules.get(folder.rpartition("/")[0], above)
            if folder and folder not in self._index:
                return  # ignored by now
            self._scan(folder, fd, above, deep=False)
        finally:
            os.close(fd)

    def _scan(self, folder: str, fd: int, above: Ignoring, *, deep: bool) -> None:
        """Compare one folder with what is known; new folders in it, or all, likewise."""
        if self._closing:
            return
        self._watch.add(fd, folder)  # first, so that nothing falls between
        with os.scandir(fd) as listing:
            items = list(listing)
        self._count += len(items)
        if self._count > _MOST and not self.taken:
            raise _TooMany
        full = self._full(folder)
        before = self._rules.get(folder)
        has_rules = any(item.name in RULE_FILES for item in items)
        known = self._index.get(folder)
        changed_rules = any(self._is_news(folder, fd, item) for item in items) or (
            known is not None and any(name in known for name in RULE_FILES) and not has_rules
        )
        if has_rules and not changed_rules and not deep and before is not None:
            rules = before
        else:
            rules = above.within(full) if has_rules else above
        self._rules[folder] = rules
        nodes = self._index.setdefault(folder, {})
        seen = set()
        for item in items:
            name = item.name
            if name == self._own[1] and full == self._own[0]:
                continue
            is_folder = item.is_dir(follow_symlinks=False)
            if rules.leaves_out(full, name, is_folder):
                if name != ".git":
                    self._left_out.add(_join(folder, name) + ("/" if is_folder else ""))
                if name in nodes:
                    self._forget(folder, name)  # ignored from now on: not deleted
                continue
            seen.add(name)
            # What was ignored so far is not new: to undo its making would be to delete it.
            silent = name not in nodes and before is not None and before is not rules
            silent = silent and before is not None and before.leaves_out(full, name, is_folder)
            try:
                self._meet(folder, fd, item, nodes, deep=deep or changed_rules, silent=silent)
            except (FileNotFoundError, NotADirectoryError):
                seen.discard(name)
            except OSError:
                continue  # unreadable or in motion: as it was
        for name in nodes.keys() - seen:
            self._gone(folder, name)

    def _is_news(self, folder: str, fd: int, item: os.DirEntry[str]) -> bool:
        if item.name not in RULE_FILES:
            return False
        node = self._index.get(folder, {}).get(item.name)
        return node is None or node.signature != _signature(item.stat(follow_symlinks=False))

    def _meet(
        self,
        folder: str,
        fd: int,
        item: os.DirEntry[str],
        nodes: dict[str, _Node],
        *,
        deep: bool,
        silent: bool,
    ) -> None:
        info = item.stat(follow_symlinks=False)
        name, path, node = item.name, _join(folder, item.name), nodes.get(item.name)
        is_folder = stat.S_ISDIR(info.st_mode)
        if is_folder:
            entry: str | None = f"dir {stat.S_IMODE(info.st_mode):o}"
            signature = None
        else:
            signature = _signature(info)
            if node is not None and node.signature == signature:
                return
            entry = self._entry(fd, name, info)
            newest = max(info.st_mtime_ns, info.st_ctime_ns)
            if time.time_ns() - newest < _RACY_NS:
                signature = None  # the next look reads it again
        if entry is None:
            return
        was_folder = node is not None and node.entry.startswith("dir")
        if was_folder and not is_folder:
            self._drop_below(path)
        nodes[name] = _Node(entry, signature)
        if not silent and (node is None or node.entry != entry):
            self._note(path, node.entry if node else "", entry)
        if is_folder and (deep or not was_folder or path not in self._index):
            below = open_folder(name, fd)
            try:
                if silent:
                    kept = dict(self._before), dict(self._after)
                self._scan(path, below, self._rules[folder], deep=deep)
                if silent:
                    self._before, self._after = kept
            finally:
                os.close(below)

    def _entry(self, fd: int, name: str, info: os.stat_result) -> str | None:
        if stat.S_ISREG(info.st_mode) and (self.problem or info.st_size > self._room):
            if not self.problem:
                self.problem = f"more than {_ROOM >> 30} GiB or a quarter of the free disk"
            return str(Entry("file", stat.S_IMODE(info.st_mode), UNKEPT))
        kept = self.blobs.kept_bytes
        try:
            entry = entry_of(fd, name, info, self.blobs)
        except SnapshotError as error:
            self.problem = error.message
            entry = Entry("file", stat.S_IMODE(info.st_mode), UNKEPT)
        self._room -= self.blobs.kept_bytes - kept
        return str(entry) if entry else None

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """A store that cannot be written is a reason to keep no more, not to stop working."""
        try:
            yield
        except SnapshotError as error:
            self.problem = self.problem or error.message

    def _note(self, path: str, before: str, after: str) -> None:
        if before and path not in self._before and path not in self._after:
            self._before[path] = before
        if after:
            self._after[path] = after
        else:
            self._after.pop(path, None)

    def _gone(self, folder: str, name: str) -> None:
        node = self._index[folder].pop(name)
        path = _join(folder, name)
        if node.entry.startswith("dir"):
            self._drop_below(path)
        self._note(path, node.entry, "")

    def _drop_below(self, folder: str) -> None:
        for name in list(self._index.get(folder, ())):
            self._gone(folder, name)
        self._index.pop(folder, None)
        self._rules.pop(folder, None)

    def _forget(self, folder: str, name: str) -> None:
        kept = dict(self._before), dict(self._after)
        self._gone(folder, name)
        self._before, self._after = kept

    # -- the last look, kept ----------------------------------------------------------------

    def _load(self) -> None:
        """One line of JSON for each folder: its name, and what is in it."""
        self._index = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            for line in (self._folder / INDEX).read_bytes().splitlines():
                folder, nodes = json.loads(line)
                self._index[folder] = {
                    name: _Node(entry, tuple(signature) if signature else None)
                    for name, (entry, signature) in nodes.items()
                    if entry.startswith("dir") or entry.split(" ")[-1] in self.blobs
                }

    def _save(self) -> None:
        self.blobs.flush()
        temporary = self._folder / f"{INDEX}.{os.getpid()}"
        with contextlib.suppress(OSError):  # the next session will look again
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(temporary, "w", encoding="ascii") as file:
                for item in self._index.items():  # in small pieces, as each holds the others up
                    file.write(json.dumps(item) + "\n")
            os.replace(temporary, self._folder / INDEX)


def files_of(blobs: Blobs, tree: str) -> Mapping[str, str]:
    """Path to entry of everything that a tree holds.

    Raises:
        SnapshotError: it was not kept.
    """
    try:
        text = zlib.decompress(blobs.get(tree)).decode("utf-8", "surrogateescape")
    except zlib.error as error:
        raise SnapshotError(f"the list of files {tree[:12]} is damaged") from error
    fields = text.split("\0")
    return dict(zip(fields[0:-1:2], fields[1::2], strict=True))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _signature(info: os.stat_result) -> _Signature:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
