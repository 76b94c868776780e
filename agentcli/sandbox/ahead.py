"""A sandbox that is made ahead: a shell in it waits for one line, which becomes the command.

Namespaces and some forty mounts take about 10 ms, which a command need not wait for while the model
is thinking. Everything but the line itself is settled in a template: a launch of the shell. The
supervisor keeps two such shells waiting and makes one anew for each command; a command whose
template is another one gets a sandbox made at once. Each serves one command and ends with it.

Covers: that a waiting sandbox shows what a new one would show. What it was made of is compared
    right before the line is sent: the arguments, which depend on what exists in the workspace, and
    the files and folders themselves. Folders are held open meanwhile, so that none of their
    numbers can be given to another; of a file, which can have several names, the change time
    counts as well, since taking a name from it would take the mount away.
Does not cover: what changes after that, as with a sandbox made at that moment.
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
"""Before a command line: bash runs it where there is one. The waiting shell decides that itself."""
LONGEST = 32768
"""Bytes of a line, which must fit into a pipe that nobody has read from yet."""

_BINDS = frozenset({"--bind", "--bind-try", "--ro-bind", "--ro-bind-try"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Variables that shells set themselves, or refuse to set.
_OF_SHELLS = frozenset({"_", "EUID", "IFS", "OLDPWD", "PPID", "PWD", "SHELLOPTS", "SHLVL", "UID"})

Identity = tuple[int, int, int] | None

_numbers = count(1)


def line(argv: Sequence[str], cwd: str | None, env: Mapping[str, str]) -> bytes | None:
    """The line that makes a shell become the command; None if it cannot be said to a shell."""
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
    """Whether a shell hands these variables on as they are."""
    return not _OF_SHELLS & env.keys() and all(map(_NAME.fullmatch, env))


class Sources:
    """The files and folders that a waiting sandbox was made of, as they were then."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._known: dict[str, Identity] = {}
        self._number = 0

    def number(self, paths: Iterable[str]) -> int:
        """The same number as last time if all is as it was then, else one never given before."""
        now = {path: _identity(path) for path in paths}
        if now != self._known:
            self.close()
            self._hold(now)
            self._known = now
            self._number = next(_numbers)
        return self._number

    def close(self) -> None:
        """Let go of the folders."""
        while self._held:
            os.close(self._held.pop())
        self._known = {}

    def _hold(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue  # a file, or nothing


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
    """The paths on the host that a launch shows inside."""
    found = {path for flag, path in pairwise(argv) if flag in _BINDS}
    if namespaces is not None:
        found.update(source for source, _ in namespaces["binds"].values())
        found.update(namespaces["again"])
    for name in ("read", "list", "write", "devices"):
        found.update((landlock or {}).get(name, ()))
    return found
