"""Sandboxes that are prepared ahead of time, each with a shell that waits for its command.

Creating the namespaces and some forty mounts takes about 10 ms. Doing it while the model is
thinking saves the command that wait. A template, which is a launch of the shell, fixes everything
except the command line. The supervisor keeps two such shells waiting and replaces each one that is
used. A command with a different template gets a newly made sandbox. Each sandbox serves one command
and ends with it.

Covers: a waiting sandbox shows what a new one would show. Right before the line is sent, its
    sources are compared with those it was made from: the arguments, which depend on what exists
    in the workspace, and the files and folders themselves. Folders are held open in the meantime,
    so that their inode numbers cannot be reused. For a file, which can have several names, the
    change time counts too: removing one of its names would remove the mount.
Does not cover: changes after that comparison, just as with a sandbox made at that moment.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

SHELL = "/bin/sh"
BASH_OR_SH = (
    *(SHELL, "-c"),
    'if [ -x /bin/bash ]; then exec /bin/bash -c "$1"; else exec /bin/sh -c "$1"; fi',
    "sh",
)
"""Prefix of a command line: bash runs it if it is installed, else sh. The waiting shell decides."""
LONGEST = 32768
"""The most bytes of a line: it must fit into a pipe that nobody has read from yet."""

_BINDS = frozenset({"--bind", "--bind-try", "--ro-bind", "--ro-bind-try"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Variables that shells set themselves or refuse to set.
_OF_SHELLS = frozenset({"_", "EUID", "IFS", "OLDPWD", "PPID", "PWD", "SHELLOPTS", "SHLVL", "UID"})

Identity = tuple[int, int, int] | None

_numbers = count(1)


def line(argv: Sequence[str], cwd: str | None, env: Mapping[str, str]) -> bytes | None:
    """The line that turns the shell into the command; None if no line can express it."""
    if argv[0].startswith("-") or not passes_on(env):
        return None
    words = [f"cd -P {shlex.quote(cwd)} && unset OLDPWD || exit;"] if cwd else []
    words += [f"export {name}={shlex.quote(value)};" for name, value in env.items()]
    if tuple(argv[:-1]) == BASH_OR_SH:
        words.append(f"exec </dev/null; set -- {shlex.quote(argv[-1])}; {BASH_OR_SH[2]}\n")
    else:
        words.append(f"exec {shlex.join(argv)} </dev/null\n")
    text = os.fsencode(" ".join(words))
    return text if len(text) <= LONGEST and b"\0" not in text else None


def passes_on(env: Mapping[str, str]) -> bool:
    """Whether a shell passes these variables on unchanged."""
    return not _OF_SHELLS & env.keys() and all(map(_NAME.fullmatch, env))


class Sources:
    """The files and folders that a waiting sandbox was made from, as they were at that time."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._known: dict[str, Identity] = {}
        self._number = 0

    def number(self, paths: Iterable[str]) -> int:
        """The same number as last time if nothing has changed since, else a new one."""
        now = {path: _identity(path) for path in paths}
        if now != self._known:
            self.close()
            self._hold(now)
            self._known = now
            self._number = next(_numbers)
        return self._number

    def close(self) -> None:
        """Close the folders."""
        while self._held:
            os.close(self._held.pop())
        self._known = {}

    def _hold(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue  # a file, or missing


def _identity(path: str) -> Identity:
    try:
        info = os.stat(path)
    except OSError:
        return None
    changed = 0 if stat.S_ISDIR(info.st_mode) else info.st_ctime_ns
    return info.st_dev, info.st_ino, changed


def sources(
    argv: Sequence[str], namespaces: Mapping[str, Any] | None, landlock: Mapping[str, Any] | None
) -> set[str]:
    """The host's paths that a launch makes visible inside."""
    found = {path for flag, path in pairwise(argv) if flag in _BINDS}
    if namespaces is not None:
        found.update(source for source, _ in namespaces["binds"].values())
        found.update(namespaces["again"])
    for name in ("read", "list", "write", "devices"):
        found.update((landlock or {}).get(name, ()))
    return found
