"""Checkpoints of a workspace, stored outside of it: its state before a tool changed it.

Covers: files, their executable bits, links, deletions, renames and empty folders, whatever their
    names and contents, including changes by commands. This neither needs nor touches git: the
    project's index, hooks, filters and line endings play no part.
Does not cover: what the project ignores, known caches and what lies deeper than ``scan.DEEPEST``
    folders (``left_out`` names them), ``.git``, the content of files over 16 MiB and of unreadable
    files, owners and extended attributes. An ignored file is covered if a file tool writes it.

The first scan (``take``) reads every file once, in a thread, during the model's first answer. The
next session in the same workspace reads only files that differ in size, times, inode or mode. The
cost of later scans depends on how much has changed, since inotify reports the folders concerned
(without it, every file is stat'ed again). ``bench/snapshots.py`` has a project of 50,000 files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agentcli.environments.base import Changes
from agentcli.environments.blobs import Blobs, digest_of
from agentcli.environments.entries import capture
from agentcli.environments.scan import Node, Scan, TooMany, join
from agentcli.environments.worker import open_regular
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch

INDEX = "index.jsonl"
_ROOM = 2 << 30  # bytes stored for one workspace, or a quarter of the free space if that is less
_MOST = 400_000  # files of one workspace
_OWN = ("sessions", "snapshots", "batches", "replays")
"""What agentcli writes to the data folder."""


def folder_of(data: Path, workspace: str) -> Path:
    """The folder for the checkpoints of a workspace, below the data folder."""
    return data / "snapshots" / digest_of(os.fsencode(workspace))[:16]


class Snapshots:
    """The checkpoints of one workspace. ``folder`` holds file contents and the last scan."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = os.path.realpath(root)
        self.blobs = Blobs(folder)
        self._folder = folder
        self._watch = Watch()
        # The data folder does not count as part of the workspace, even if it lies in it; if it is
        # the workspace, that goes for what agentcli keeps there.
        data = os.path.realpath(folder.parent.parent)
        own = [os.path.join(data, name) for name in _OWN] if data == self.root else [data]
        self._scan = Scan(self.root, own, self.blobs, self._watch)
        self._lock = threading.Lock()
        self._looking = asyncio.Lock()
        self._taking: asyncio.Future[None] | None = None
        self._known = False
        self._changed: set[str] | None = set()
        self._off = False
        self.taken = ""
        """The digest of the list of all files, as the first scan found them."""

    @property
    def problem(self) -> str:
        """Why contents are no longer stored; empty while all is well."""
        return self._scan.problem

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the project ignores, folders with a trailing slash, without what is below them."""
        return tuple(sorted(self._scan.left_out))

    # -- for the event loop -----------------------------------------------------------------

    def begin(self) -> None:
        """Start the first scan in a thread; ``ready`` waits for it."""
        if self._taking is None:
            self._taking = asyncio.ensure_future(asyncio.to_thread(self.take))

    async def ready(self) -> None:
        """Wait for the first scan, and start it if necessary."""
        self.begin()
        assert self._taking is not None
        await asyncio.shield(self._taking)

    @property
    def begun(self) -> bool:
        """Whether the first scan has been started."""
        return self._taking is not None

    @property
    def watches(self) -> bool:
        """Whether a scan can be limited to what has changed."""
        return self._watch.works

    @property
    def unchanged(self) -> bool:
        """Whether ``changes`` is certain to find none; answers without waiting for anything."""
        if not self._known or self._looking.locked():
            return False
        self._hear()
        return self._changed == set()

    def _hear(self) -> None:
        """Collect the folders that have changed; None if any may have."""
        now = self._watch.changed()
        self._changed = None if now is None or self._changed is None else self._changed | now

    async def changes(self, near: str | None = None) -> Changes:
        """The changes since the last scan.

        If it is not known which folders have changed, ``near``, a path relative to the root,
        limits the scan to the folder of that path.
        """
        await self.ready()
        async with self._looking:
            self._hear()
            folders, self._changed = self._changed, set()
            if folders is None and near is not None:
                folders = {self._scan.known_above(near)}
            if folders is not None and not folders:
                return Changes()
            return await asyncio.to_thread(self.look, folders)

    async def aclose(self) -> None:
        """Save the last scan for the next session, and close everything."""
        self._scan.stopped = True
        if self._taking is not None:
            await asyncio.wait([self._taking])
        await asyncio.to_thread(self.close)

    # -- the work itself --------------------------------------------------------------------

    def take(self) -> None:
        """Scan everything for the first time; from then on ``look`` finds changes."""
        with self._lock:
            self.blobs.places()  # finds out how much is stored already
            free = shutil.disk_usage(_existing(self._folder)).free
            self._scan.limit = min(_ROOM, self.blobs.kept_bytes + free // 4)
            self._load()
            try:
                self._scan.first(_MOST)
            except TooMany:
                self._give_up()
        if not self._scan.stopped and not self._off:
            self.taken = self.tree()
        self._known = True

    def _give_up(self) -> None:
        """Store only what file tools are about to change."""
        self._off = True
        self._scan.problem = f"{self.root} holds more than {_MOST:,} files"
        self._watch.close()
        self._scan.forget()

    def look(self, folders: Iterable[str] | None = None) -> Changes:
        """The changes since the last scan, which can only be in ``folders``, if given."""
        with self._lock:
            if self._off:
                return Changes()
            if folders is None:
                self._scan.everything()
            else:
                for folder in sorted(folders):
                    self._scan.one(folder)
            with self._keeping():
                self.blobs.flush()
            return self._scan.take_changes()

    def covers(self, path: str) -> bool:
        """Whether a scan would notice a change of this path, relative to the root."""
        return self._scan.covers(path)

    def capture(self, path: str) -> str:
        """The entry at a path now, with its content stored, even if scans do not cover it."""
        with self._keeping():
            return capture(self.root, path, self.blobs)
        return ""

    def tree(self) -> str:
        """Store the list of all known files; returns its digest, for ``files_of``."""
        with self._lock, self._keeping():
            names = (
                f"{join(folder, name)}\0{node.entry}\0"
                for folder, nodes in self._scan.index.items()
                for name, node in nodes.items()
            )
            text = "".join(names).encode("utf-8", "surrogateescape")
            digest = self.blobs.put(zlib.compress(text, 1))
            self.blobs.flush()
            return digest
        return ""

    def close(self) -> None:
        """Save the last scan, and close everything; blocks."""
        with self._lock:
            self._watch.close()
            with self._keeping():
                if self.taken:
                    self._save()
                self.blobs.close()

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """Stop storing contents if the store cannot be written, but go on working."""
        try:
            yield
        except SnapshotError as error:
            self._scan.problem = self.problem or error.message

    # -- the saved scan ---------------------------------------------------------------------

    def _load(self) -> None:
        """Load the saved scan: one line of JSON for each folder, with its name and contents."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            with open_regular(str(self._folder / INDEX)) as file:
                lines = file.read().splitlines()
            for line in lines:
                folder, nodes = json.loads(line)
                self._scan.index[folder] = {
                    name: Node(entry, tuple(signature) if signature else None)
                    for name, (entry, signature) in nodes.items()
                    if entry.startswith("dir") or entry.split(" ")[-1] in self.blobs
                }

    def _save(self) -> None:
        self.blobs.flush()
        temporary = self._folder / f"{INDEX}.{os.getpid()}"
        with contextlib.suppress(OSError):  # then the next session scans again
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(temporary, "w", encoding="ascii") as file:
                # In small pieces: each call of json.dumps keeps other threads waiting.
                for item in self._scan.index.items():
                    file.write(json.dumps(item) + "\n")
            os.replace(temporary, self._folder / INDEX)


def files_of(blobs: Blobs, tree: str) -> Mapping[str, str]:
    """Path to entry, of every file in a list that ``Snapshots.tree`` stored.

    Raises:
        SnapshotError: the list was not stored, or is damaged.
    """
    try:
        text = zlib.decompress(blobs.get(tree)).decode("utf-8", "surrogateescape")
    except zlib.error as error:
        raise SnapshotError(f"the list of files {tree[:12]} is damaged") from error
    fields = text.split("\0")
    return dict(zip(fields[0:-1:2], fields[1::2], strict=True))


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
