"""Packs a workspace's files to send them to another machine, and unpacks what comes back."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

Listing = Mapping[str, tuple[int, int, int, int]]
"""Maps each path to its mode, size, modification time in ns and inode."""

_OURS = ".git"
"""In the root: the copy's own link to its repository, which stays in place."""


def pack(root: Path, paths: Iterable[Path] | None = None) -> bytes:
    """Pack these paths below ``root``, or all except its ``.git``, into a compressed tar."""
    if paths is None:
        paths = [path for path in sorted(root.iterdir()) if path.name != _OURS]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz", compresslevel=1) as archive:
        for path in paths:
            archive.add(path, path.relative_to(root))
    return written.getvalue()


def unpack(archive: bytes, root: Path, gone: Iterable[str] = ()) -> None:
    """Unpack files below ``root`` and remove those that are ``gone``.

    Raises:
        OSError: a file cannot be written.
        tarfile.TarError: a name leads out of ``root``.
    """
    root.mkdir(parents=True, exist_ok=True)
    for path in map(_checked, gone):
        _remove(root / path)
    if not archive:
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            name = _checked(member.name)
            for above in list(name.parents)[-2::-1]:  # a link or file where a folder is needed
                if (root / above).is_symlink() or (root / above).is_file():
                    (root / above).unlink()
            place = root / name
            if place.is_symlink() or (place.exists() and place.is_dir() != member.isdir()):
                _remove(place)
            opened.extract(member, root, filter=_inside)


def listing(root: Path) -> Listing:
    """List all files, links and folders below ``root``, without its ``.git``."""
    found = {}
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name != _OURS]
            files = [name for name in files if name != _OURS]
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            told = (0, 0, 0) if is_folder else (info.st_size, info.st_mtime_ns, info.st_ino)
            found[os.path.relpath(path, root)] = (info.st_mode, *told)
    return found


def changed(root: Path, before: Listing) -> tuple[list[Path], tuple[str, ...]]:
    """The paths that are new or differ from ``before``, and the names of those that are gone."""
    now = listing(root)
    files = [root / name for name, told in now.items() if before.get(name) != told]
    apart = [path for path in files if not path.is_dir() or path.is_symlink()]
    empty = [path for path in files if path.is_dir() and not any(path.iterdir())]
    return sorted([*apart, *empty]), tuple(sorted(set(before) - set(now)))


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{name!r} leads out of the folder")
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """Keep a member's mode but make us its owner; refuse names that lead out of the folder."""
    checked = tarfile.tar_filter(member, path)
    return checked.replace(uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)
