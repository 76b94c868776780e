"""Removes a folder that a command has filled, whatever it contains.

Covers: folders nested too deep for any path or recursion (``shutil.rmtree`` fails at a thousand),
    and folders that deny access to their owner. Links are not followed.
Does not cover: a folder that somebody still writes to; files of another user.
"""

from __future__ import annotations

import contextlib
import os


def remove(root: str) -> None:
    """Remove a folder as far as possible; never raises OSError.

    Every folder below is first moved up into ``root``, so that all paths stay short.
    """
    mark = os.urandom(8).hex()
    moved = 0
    pending = [root]
    while pending:
        folder = pending.pop()
        for entry in _opened(folder):
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)  # without access it can be neither moved nor emptied
                path = f"{root}/{mark}-{moved}"
                os.rename(entry.path, path)
                moved += 1
                pending.append(path)
        if folder != root:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    with contextlib.suppress(OSError):
        os.rmdir(root)


def _opened(folder: str) -> list[os.DirEntry[str]]:
    try:
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
