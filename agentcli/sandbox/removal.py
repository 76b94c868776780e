"""Removes a folder that a command has filled, whatever it contains.

Covers: folders nested too deep for any path or recursion (``shutil.rmtree`` fails at a thousand),
    and folders that deny access to their owner. Links are not followed.
Does not cover: a folder that somebody still writes to; files of another user.
"""

from __future__ import annotations

import contextlib
import os

from agentcli.sandbox.tree import is_running


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


def remove_abandoned(folder: str, prefix: str) -> None:
    """Remove this user's folders ``PREFIX`` + pid + ``-...`` whose process no longer runs.

    Raises:
        OSError: ``folder`` cannot be listed.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            owner = entry.name.removeprefix(prefix).partition("-")[0]
            if not entry.name.startswith(prefix) or not owner.isdigit():
                continue
            with contextlib.suppress(OSError):
                mine = entry.stat(follow_symlinks=False).st_uid == os.getuid()
                if mine and entry.is_dir(follow_symlinks=False) and not is_running(int(owner)):
                    remove(entry.path)


def _opened(folder: str) -> list[os.DirEntry[str]]:
    try:
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
