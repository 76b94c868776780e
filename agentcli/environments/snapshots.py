"""Checkpoints of a workspace, kept outside of it: what was there before a tool changed it.

Covers: files, their executable bits, links, deletions, renames and empty folders, whatever their
    names and contents, also where a command changed them. No git is needed, and none is touched:
    neither the project's index nor its hooks, filters or line endings have a say.
Does not cover: what the project ignores, known caches and what lies deeper than ``scan.DEEPEST``
    folders (``left_out`` names them), ``.git``, the content of files over 16 MiB and of those that
    cannot be read, owners and extended attributes. An ignored file that a file tool writes is
    covered all the same.

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
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agentcli.environments.base import Changes
from agentcli.environments.blobs import Blobs, digest_of
from agentcli.environments.entries import capture
from agentcli.environments.scan import Node, Scan, TooMany, join
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch

INDEX = "index.jsonl"
_ROOM = 2 << 30  # bytes of one workspace that are kept at most, and a quarter of what is free
_MOST = 400_000  # files of one workspace


def folder_of(data: Path, workspace: str) -> Path:
    """Where the checkpoints of a workspace are, below the data folder."""
    return data / "snapshots" / digest_of(os.fsencode(workspace))[:16]


class Snapshots:
    """What is known of one workspace. ``folder`` holds the contents and the last look."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = os.path.realpath(root)
        self.blobs = Blobs(folder)
        self._folder = folder
        self._watch = Watch()
        # Where the data folder lies in the workspace, it is not a part of it.
        own = os.path.realpath(folder.parent.parent)
        self._scan = Scan(self.root, own, self.blobs, self._watch)
        self._lock = threading.Lock()
        self._looking = asyncio.Lock()
        self._taking: asyncio.Future[None] | None = None
        self._known = False
        self._changed: set[str] | None = set()
        self._off = False
        self.taken = ""
        """The digest of the list of all files as the first look found them."""

    @property
    def problem(self) -> str:
        """Why contents are no longer kept; empty while all is well."""
        return self._scan.problem

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the project ignores, folders with a slash at the end; not what is below them."""
        return tuple(sorted(self._scan.left_out))

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

    @property
    def unchanged(self) -> bool:
        """Whether it is certain, without waiting for anything, that ``changes`` would find none."""
        if not self._known or self._looking.locked():
            return False
        self._hear()
        return self._changed == set()

    def _hear(self) -> None:
        """Add up in which folders something happened; None: perhaps in all."""
        now = self._watch.changed()
        self._changed = None if now is None or self._changed is None else self._changed | now

    async def changes(self, near: str | None = None) -> Changes:
        """What has changed since the last look.

        ``near``, a path relative to the root, is all that is looked at where a look at everything
        would cost more.
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
        """Keep what is known for the next session and let go of everything."""
        self._scan.stopped = True
        if self._taking is not None:
            await asyncio.wait([self._taking])
        await asyncio.to_thread(self.close)

    # -- the work itself --------------------------------------------------------------------

    def take(self) -> None:
        """Look at everything once; afterwards ``look`` tells what changed."""
        with self._lock:
            self.blobs.places()  # tells how much is kept already
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
        """Keep only what file tools are about to change."""
        self._off = True
        self._scan.problem = f"{self.root} holds more than {_MOST:,} files"
        self._watch.close()
        self._scan.forget()

    def look(self, folders: Iterable[str] | None = None) -> Changes:
        """What differs from the last look; ``folders`` are the only ones where it can be."""
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
            return self._scan.news()

    def covers(self, path: str) -> bool:
        """Whether a look would notice a change of this path, relative to the root."""
        return self._scan.covers(path)

    def capture(self, path: str) -> str:
        """What stands at a path now, its content kept, whether a look covers it or not."""
        with self._keeping():
            return capture(self.root, path, self.blobs)
        return ""

    def tree(self) -> str:
        """The digest of all that is known, for ``files_of``; its content is kept."""
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
        """Keep the index and let go of everything."""
        with self._lock:
            self._watch.close()
            with self._keeping():
                if self.taken:
                    self._save()
                self.blobs.close()

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """A store that cannot be written is a reason to keep no more, not to stop working."""
        try:
            yield
        except SnapshotError as error:
            self._scan.problem = self.problem or error.message

    # -- the last look, kept ----------------------------------------------------------------

    def _load(self) -> None:
        """One line of JSON for each folder: its name, and what is in it."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            for line in (self._folder / INDEX).read_bytes().splitlines():
                folder, nodes = json.loads(line)
                self._scan.index[folder] = {
                    name: Node(entry, tuple(signature) if signature else None)
                    for name, (entry, signature) in nodes.items()
                    if entry.startswith("dir") or entry.split(" ")[-1] in self.blobs
                }

    def _save(self) -> None:
        self.blobs.flush()
        temporary = self._folder / f"{INDEX}.{os.getpid()}"
        with contextlib.suppress(OSError):  # the next session will look again
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(temporary, "w", encoding="ascii") as file:
                # In small pieces, as each holds the others up.
                for item in self._scan.index.items():
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


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
