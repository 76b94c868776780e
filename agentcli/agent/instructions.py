"""A project's instructions to agents: AGENTS.md, or CLAUDE.md in a folder without AGENTS.md.

The system prompt includes the user's own file, the file of the workspace's root, and those of the
folders above it up to the repository's root. The files of subfolders are added when a tool first
touches a file there. If two disagree, the one nearest to the file applies (agents.md).

Files in the workspace are read through the environment: a link in an untrusted repository must not
send one of the user's secrets to the provider.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentcli.environments.base import Environment
from agentcli.errors import AgentCLIError
from agentcli.text import truncate

NAMES = ("AGENTS.md", "CLAUDE.md")
MOST_CHARS = 32_000
"""The limit for one file. A longer one is truncated, and the text says so."""

_HEADER = "Instructions of {path}"


class Instructions:
    """The instructions for one workspace. ``user_folder`` holds the user's own, for all projects.

    ``opening`` is the part for the system prompt; ``load`` fills it.
    """

    def __init__(self, environment: Environment, user_folder: Path | None = None) -> None:
        self._environment = environment
        self._user_folder = user_folder
        self._looked_in = {"", "."}
        self.opening = ""

    async def load(self) -> None:
        """Read the files for the system prompt, the outermost first."""
        found = list(_outside(self._user_folder, Path(self._environment.root)))
        if own := await self._of_folder(""):
            found.append(own)
        self.opening = "\n\n".join(_with_header(path, text) for path, text in found)

    def add(self, text: str) -> None:
        """Add a text to the system prompt's part."""
        self.opening = "\n\n".join(filter(None, (self.opening, text)))

    async def near(self, paths: Iterable[str], history: Iterable[str]) -> str:
        """The instructions of subfolders that apply to these files, except those already given.

        ``paths`` are relative to the workspace. ``history`` holds the texts that the model has
        read, so that a resumed session does not repeat instructions.
        """
        folders = [folder for path in paths for folder in _folders(path)]
        new = [folder for folder in dict.fromkeys(folders) if folder not in self._looked_in]
        self._looked_in.update(new)
        found = [own for folder in new if (own := await self._of_folder(folder))]
        if not found:
            return ""
        heard = tuple(history)
        return "\n\n".join(
            _with_header(path, text)
            for path, text in found
            if not any(_HEADER.format(path=path) in earlier for earlier in heard)
        )

    async def _of_folder(self, folder: str) -> tuple[str, str] | None:
        for name in NAMES:
            path = posixpath.join(folder, name)
            try:
                data = await self._environment.read(path, max_bytes=4 * MOST_CHARS)
            except AgentCLIError:
                continue  # missing, not a file, or not readable from inside the sandbox
            if text := _readable(data):
                return path, text
        return None


def _outside(user_folder: Path | None, root: Path) -> Iterator[tuple[str, str]]:
    """Yield the user's own file, then those above the workspace within its repository."""
    above = []
    if not (root / ".git").exists():
        for folder in root.parents:
            above.append(folder)
            if (folder / ".git").exists():
                break
        else:
            above = []  # not in a repository: the folders above are not part of the project
    for folder in [*([user_folder] if user_folder else []), *reversed(above)]:
        for name in NAMES:
            if text := _read_plain(folder / name):
                yield str(folder / name), text
                break


def _read_plain(path: Path) -> str:
    """The text of a regular file; empty if there is none, or if the path is a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return _readable(file.read(4 * MOST_CHARS))


def _readable(data: bytes) -> str:
    if b"\0" in data:
        return ""
    return str(truncate(data.decode("utf-8-sig", errors="replace").strip(), MOST_CHARS))


def _with_header(path: str, text: str) -> str:
    return f"{_HEADER.format(path=path)}\n\n{text}"


def _folders(path: str) -> Iterator[str]:
    """Yield the folders between the root and a file, the outermost first."""
    if path.startswith(("/", "../")):
        return
    parts = posixpath.normpath(path).split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        yield "/".join(parts[:depth])
