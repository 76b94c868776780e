"""Reports the folders in which something changed, by inotify(7).

It finds a change among 50,000 files without looking at them. If the system has no inotify, has no
room for more watches or has lost events, the answer is that anything may have changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
NAMES = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
"""A name appears or disappears."""
CHANGES = NAMES | _MODIFY | _ATTRIB | _CLOSE_WRITE
"""The same, and changes to a file itself."""
_OVERFLOW, _IGNORED, _ONLY_FOLDERS = 0x4000, 0x8000, 0x01000000
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Watch:
    """Watches the folders it is given, but not those below them.

    A watched folder that is removed counts as changed.
    """

    def __init__(self, events: int = CHANGES) -> None:
        self._events = events
        self._fd = -1
        self._folders: dict[int, str] = {}
        self._lost = True
        if sys.platform != "linux":
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        self._lost = self._fd < 0
        self._room = _watches_at_most() // 4  # the user's other programs need some too

    @property
    def works(self) -> bool:
        """Whether ``changed`` is reliable."""
        return not self._lost

    def add(self, fd: int, folder: str) -> None:
        """Watch the folder open as ``fd``, and report it as ``folder``."""
        if self._lost:
            return
        if len(self._folders) >= self._room:
            self.close()
            return
        path = f"/proc/self/fd/{fd}".encode()
        watch = self._libc.inotify_add_watch(self._fd, path, self._events | _ONLY_FOLDERS)
        if watch < 0:
            self.close()
        else:
            self._folders[watch] = folder  # a folder keeps its watch when it is moved

    def changed(self) -> set[str] | None:
        """The folders that changed since the last call; None if any may have changed."""
        found: set[str] = set()
        while not self._lost:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                break
            place = 0
            while place < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, place)
                place += _EVENT.size + length
                if mask & _OVERFLOW:
                    self._forget_events()
                    return None
                folder = self._folders.get(watch)
                if mask & _IGNORED:
                    self._folders.pop(watch, None)
                if folder is not None:
                    found.add(folder)
        return None if self._lost else found

    def close(self) -> None:
        """Stop watching; from now on anything may have changed."""
        self._lost = True
        self._folders.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _forget_events(self) -> None:
        # The caller now looks at everything, which covers whatever is still queued.
        with contextlib.suppress(OSError):
            while os.read(self._fd, 1 << 16):
                pass


def _watches_at_most() -> int:
    try:
        with open("/proc/sys/fs/inotify/max_user_watches") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
