"""Describes a directory entry of a workspace by a short text, and restores it from that text.

``file 644 DIGEST``, ``link 777 DIGEST`` (of its target), ``dir 755``; the empty text stands for no
entry. ``-`` instead of a digest means that the content is not kept (too large, unreadable). Links
in the path are never followed, so a folder that was replaced by a link leads nowhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import NamedTuple

from agentcli.environments.blobs import Blobs
from agentcli.errors import SnapshotError

LARGEST = 16 << 20
"""Bytes of one file; the content of a larger one is not kept."""
UNKEPT = "-"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(NamedTuple):
    """``mode`` holds the permission bits; ``digest`` is empty for a folder."""

    kind: str
    mode: int
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Parse what ``str`` returns.

        Raises:
            SnapshotError: the text is invalid.
        """
        try:
            kind, mode, *digest = text.split(" ")
            entry = cls(kind, int(mode, 8), *digest)
            if kind in ("file", "link", "dir") and 0 <= entry.mode <= 0o7777:
                return entry
        except (ValueError, TypeError):
            pass
        raise SnapshotError(f"{text!r} does not describe a file, a link or a folder")

    @property
    def kept(self) -> bool:
        """Whether the whole entry can be restored."""
        return self.digest != UNKEPT

    def __str__(self) -> str:
        return f"{self.kind} {self.mode:o} {self.digest}".rstrip()


def open_folder(name: str, parent: int | None = None) -> int:
    """Open a folder; a link in its place is refused (OSError)."""
    return os.open(name, _FOLDER, dir_fd=parent)


def open_below(root: str, folder: str, *, make: bool = False) -> int:
    """Open a folder below ``root``, part by part; ``make`` creates what is missing.

    Raises:
        OSError: it does not exist, or a part of the path is not a folder.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in [part for part in folder.split("/") if part]:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o777, dir_fd=fd)
            below = open_folder(name, fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _placed(path: str) -> tuple[str, str]:
    """Split a path into folder and name. It comes from a journal, which may be damaged or foreign.

    Raises:
        SnapshotError: it leads out of the workspace, or is not a path.
    """
    try:
        parts = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:  # a lone surrogate, which no file name contains
        parts = [b""]
    if "\0" in path or not {b"", b".", b".."}.isdisjoint(parts):
        raise SnapshotError(f"{path!r} is not a path in the workspace")
    folder, _, name = path.rpartition("/")
    return folder, name


def read_file(fd: int, name: str, most: int) -> tuple[os.stat_result, bytes | None]:
    """Stat and read a regular file; no content if unreadable or larger than ``most`` bytes.

    Raises:
        OSError: it is gone, or no longer a regular file.
    """
    try:
        file = os.open(name, _FILE, dir_fd=fd)
    except PermissionError:
        return os.stat(name, dir_fd=fd, follow_symlinks=False), None
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(22, "not a regular file")
        size = info.st_size
        if size > most:
            return info, None
        data = os.read(file, size)
        while len(data) < size and (more := os.read(file, size - len(data))):
            data += more
        return info, data
    finally:
        os.close(file)


def entry_of(
    fd: int, name: str, kind: int, blobs: Blobs, *, most: int = LARGEST
) -> tuple[str, os.stat_result]:
    """The entry under a name (empty for sockets and the like), and a stat from before reading it.

    ``kind`` is the type part of its mode. Content of up to ``most`` bytes is stored in ``blobs``.

    Raises:
        OSError: it is gone, or of another kind now.
        SnapshotError: the content cannot be stored.
    """
    if kind == stat.S_IFREG:
        info, data = read_file(fd, name, most)
        digest = UNKEPT if data is None else blobs.put(data)
        return f"file {stat.S_IMODE(info.st_mode):o} {digest}", info
    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if kind == stat.S_IFLNK:
        target = os.fsencode(os.readlink(name, dir_fd=fd))
        return f"link 777 {UNKEPT if len(target) > most else blobs.put(target)}", info
    return f"dir {stat.S_IMODE(info.st_mode):o}" if kind == stat.S_IFDIR else "", info


def capture(root: str, path: str, blobs: Blobs) -> str:
    """The entry at a path below ``root``, with its content stored; empty if nothing is there.

    Raises:
        SnapshotError: the content cannot be stored, its kind changes all the time, or the path is
            not below the root.
    """
    folder, name = _placed(path)
    try:
        fd = open_below(root, folder)
    except OSError:
        return ""
    try:
        for left in (2, 1, 0):
            try:
                kind = stat.S_IFMT(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
                return entry_of(fd, name, kind, blobs)[0]
            except (FileNotFoundError, NotADirectoryError):
                return ""
            except OSError as error:  # a file has become a link, for example
                if not left:
                    raise SnapshotError(f"cannot read {path}: {error.strerror}") from error
        return ""
    finally:
        os.close(fd)


def put_back(root: str, path: str, text: str, blobs: Blobs) -> None:
    """Restore a path to what ``text`` says. A folder that is not empty is not removed.

    Raises:
        SnapshotError: the content was not kept or cannot be written, or the path is not below the
            root.
    """
    folder, name = _placed(path)
    entry = Entry.parse(text) if text else None
    data = blobs.get(entry.digest) if entry is not None and entry.kind != "dir" else b""
    try:
        fd = open_below(root, folder, make=bool(text))
    except FileNotFoundError:
        return  # the folder is gone with its contents
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        with _writable(fd):
            if entry is not None:
                _write(fd, name, entry, data)
            else:
                _remove(fd, name)
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        os.close(fd)


@contextlib.contextmanager
def _writable(fd: int) -> Iterator[None]:
    """Permit changes in the open folder, which its own mode may forbid, for the ``with`` block."""
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    closed = info.st_uid == os.geteuid() and mode & 0o300 != 0o300
    if closed:
        os.fchmod(fd, mode | 0o300)
    try:
        yield
    finally:
        if closed:
            os.fchmod(fd, mode)


def _cannot(path: str, error: OSError) -> SnapshotError:
    return SnapshotError(f"cannot put {path} back: {error.strerror}")


def _remove(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # POSIX says EPERM for a folder, Linux EISDIR
        if not _is_folder(fd, name):
            raise
        with contextlib.suppress(OSError):  # it contains files of somebody else
            os.rmdir(name, dir_fd=fd)


def _write(fd: int, name: str, entry: Entry, data: bytes) -> None:
    if entry.kind == "dir":
        if not _is_folder(fd, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
            os.mkdir(name, 0o700, dir_fd=fd)
        os.chmod(name, entry.mode, dir_fd=fd)
        return
    temporary = f".{secrets.token_hex(8)}.agentcli"
    try:
        if entry.kind == "link":
            os.symlink(os.fsdecode(data), temporary, dir_fd=fd)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600, dir_fd=fd), "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), entry.mode)
        if _is_folder(fd, name):
            os.rmdir(name, dir_fd=fd)
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=fd)
        raise


def _is_folder(fd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False
