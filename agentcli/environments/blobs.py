"""Stores file contents by digest, in a folder of append-only pack files.

Each process writes its own pack, so that sessions that share a workspace never write to the same
file. ``NAME.idx`` next to ``NAME.pack`` has records of digest, offset and length, each written
after the content itself. A torn record is ignored; its content merely counts as missing.

Nothing is compressed: for a repository of 50,000 files that is the difference between two seconds
and eight (``bench/snapshots.py``), and the folder is removed with the workspace's last session.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from agentcli.environments.worker import open_regular
from agentcli.errors import SnapshotError

_RECORD = struct.Struct(">20sQQ")  # digest, offset, length


def digest_of(data: bytes) -> str:
    """The first 160 bits of SHA-256, which CPUs compute in hardware, as 40 hexadecimal digits."""
    return hashlib.sha256(data, usedforsecurity=False).hexdigest()[:40]


class Blobs:
    """The contents stored in one folder. Safe to use from several threads."""

    def __init__(self, folder: Path, *, empty: bool = False) -> None:
        """``empty`` ignores what the folder already holds."""
        self.folder = folder
        self._places: dict[str, tuple[str, int, int]] = {}
        self._lock = threading.Lock()
        self._pack: BinaryIO | None = None
        self._path = ""
        self._size = 0
        self._unwritten: list[bytes] = []
        self._known = empty
        self.kept_bytes = 0
        """Size of all packs together."""

    def put(self, data: bytes) -> str:
        """Store some bytes and return their digest. Call ``flush`` before relying on it.

        Raises:
            SnapshotError: they cannot be written.
        """
        digest, size = digest_of(data), len(data)
        with self._lock:
            if self._is_kept(digest, data):
                return digest
            try:
                pack = self._pack or self._open()
                pack.write(data)
            except OSError as error:
                raise self._broken(error) from error
            self._places[digest] = (self._path, self._size, size)
            self._unwritten.append(_RECORD.pack(bytes.fromhex(digest), self._size, size))
            self._size += size
            self.kept_bytes += size
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes with that digest.

        Raises:
            SnapshotError: they are missing, unreadable or damaged.
        """
        self.flush()
        with self._lock:
            place = self.places().get(digest)
        if place is None:
            raise SnapshotError(f"content {digest[:12]} was not kept")
        path, offset, length = place
        try:
            with open_regular(path) as pack:
                pack.seek(offset)
                data = pack.read(length)
        except OSError as error:
            raise SnapshotError(f"cannot read {path}: {error.strerror}") from error
        if digest_of(data) != digest:
            raise SnapshotError(f"{path}: content {digest[:12]} is damaged")
        return data

    def _is_kept(self, digest: str, data: bytes) -> bool:
        """Whether the content is stored, and was not damaged since."""
        place = self.places().get(digest)
        if place is None:
            return False
        path, offset, length = place
        if path == self._path:  # may be in the buffer yet
            return True
        try:
            with open_regular(path) as pack:
                pack.seek(offset)
                return pack.read(length) == data
        except OSError:
            return False

    def __contains__(self, digest: str) -> bool:
        return digest in self.places()

    def places(self) -> Mapping[str, tuple[str, int, int]]:
        """Digest to pack, offset and length; read from the folder on first use."""
        if not self._known:
            self._known = True
            for path in sorted(self.folder.glob("*.idx")):
                self._read_index(path)
        return self._places

    def forget_index(self) -> None:
        """Read the folder's indexes again on next use, as another process has added to them."""
        self.flush()
        with self._lock:
            self._known = False

    def flush(self) -> None:
        """Write everything out.

        Raises:
            SnapshotError: it cannot be written; what was not flushed is lost.
        """
        with self._lock:
            if self._pack is None or not self._unwritten:
                return
            try:
                self._pack.flush()
                with open(Path(self._path).with_suffix(".idx"), "ab") as index:
                    index.write(b"".join(self._unwritten))
            except OSError as error:
                raise self._broken(error) from error
            self._unwritten.clear()

    def close(self) -> None:
        """Flush and close the pack."""
        try:
            self.flush()
        finally:
            if self._pack is not None:
                self._pack.close()
                self._pack = None

    def _broken(self, error: OSError) -> SnapshotError:
        """Abandon the pack, since it is unknown how much of it was written."""
        for record in self._unwritten:
            self._places.pop(record[:20].hex(), None)
        self._unwritten.clear()
        pack, self._pack = self._pack, None
        if pack is not None:
            with contextlib.suppress(OSError):
                pack.close()
        return SnapshotError(f"cannot write {self.folder}: {error.strerror}")

    def _open(self) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = str(self.folder / f"{time.time_ns():x}-{os.getpid()}.pack")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._pack = os.fdopen(os.open(self._path, flags, 0o600), "wb", 1 << 20)
        self._size = 0
        return self._pack

    def _read_index(self, path: Path) -> None:
        pack = path.with_suffix(".pack")
        try:
            with open_regular(str(pack)) as file:
                size = os.fstat(file.fileno()).st_size
            with open_regular(str(path)) as file:
                data = file.read()
        except OSError:
            return
        self.kept_bytes += size
        whole, place = len(data) - len(data) % _RECORD.size, str(pack)
        for digest, offset, length in _RECORD.iter_unpack(data[:whole]):
            if offset + length <= size:
                self._places[digest.hex()] = (place, offset, length)
