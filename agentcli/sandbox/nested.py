"""Finds what the host would obey below the workspace's top: other repositories, editors' folders.

A plain ``git status`` on the host looks into every repository that it meets in the tree, and into
its configuration. Walking the whole tree before and after each command would be too slow, so the
kernel reports the folders in which names appeared or disappeared (inotify). If it cannot, every
folder's change time is compared, which only the kernel sets.

Covers: ``.git`` (folder, file, link) in every folder, ``.git/modules``, ``.git/worktrees``,
    folders that are a bare repository, and the names in ``NAMES``.
Does not cover: what lies beyond the first ``MOST_FOLDERS`` (``cut`` says so); ``NAMES`` in folders
    of dependencies, which are full of them and which nobody opens as a project.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from agentcli.sandbox import inotify

Kind = Literal["config", "hooks", "commondir", "gitfile", "bare", "other"]

NAMES = frozenset(
    {
        *(".envrc", ".vscode", ".idea", ".mcp.json", ".devcontainer", ".cursor", ".claude"),
        *(".zed", ".fleet", ".sublime-project", ".gdbinit", ".lldbinit", ".vimrc", ".exrc"),
        *(".nvimrc", ".agentcli", ".nvim.lua", ".lvimrc", ".dir-locals.el", ".pdbrc", ".windsurf"),
        *(".gemini", ".codex", ".kiro", ".roo", ".continue"),
    }
)
MOST_FOLDERS = 50_000  # of one workspace
_DEPENDENCIES = frozenset({"node_modules", ".venv", "venv", "site-packages", "vendor"})
_OF_GIT = frozenset({"objects", "refs", "logs", "hooks", "info"})
_ENTERED = frozenset({"modules", "worktrees"})  # of ``.git``
_SETTLED_NS = 100_000_000  # file system clocks are coarse: more recent changes may look alike

# What `git init`, `git clone` and ordinary work write. Other keys can name programs that git runs.
_HARMLESS_SECTIONS = frozenset({"user", "remote", "branch", "submodule"})
_HARMLESS_KEYS = frozenset(
    {
        *("core.repositoryformatversion", "core.filemode", "core.bare", "core.logallrefupdates"),
        *("core.ignorecase", "core.symlinks", "core.precomposeunicode", "core.autocrlf"),
        *("extensions.objectformat", "extensions.refstorage", "extensions.worktreeconfig"),
        *("gc.auto", "init.defaultbranch", "pull.rebase", "push.default"),
    }
)
# "promisor" makes git fetch on its own, from wherever the file says.
_NAMING_PROGRAMS = frozenset({"uploadpack", "receivepack", "vcs", "proxy", "update", "promisor"})


class _Folder(NamedTuple):
    """One folder as it was last listed."""

    inode: int
    changed: int
    below: tuple[str, ...]
    watched: tuple[tuple[str, Kind], ...]


class Nested:
    """Finds the watched paths of one workspace, and finds them again quickly."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.cut = False
        self._known: dict[str, _Folder] = {}
        self._holding: set[str] = set()  # the known folders that hold something to watch
        self._unread: set[str] = set()  # could not be listed so far
        self._watch = inotify.Watch(inotify.NAMES)

    def find(self) -> dict[str, Kind]:
        """The watched paths, relative to the workspace, and the kind of each. Some may not exist.

        The first call walks through the whole tree, later calls only through what has changed.
        """
        changed = self._watch.changed() if self._known else None
        if changed is None or self.cut:
            before, self._known = self._known, {}
            self._holding.clear()
            self._unread.clear()
            self._walk([""], before)
        else:
            self._walk([*self._unread, *self._renewed(changed)], {})
        found: dict[str, Kind] = {}
        for path in self._holding:
            for name, kind in self._known[path].watched:
                found[name] = kind
                if kind == "gitfile" and (target := self.git_folder(name)) is not None:
                    found.update(_git_paths(target))
        return found

    def close(self) -> None:
        """Stop the kernel's watch."""
        self._watch.close()

    def _walk(self, start: Iterable[str], before: dict[str, _Folder]) -> None:
        """List these folders and all below them, reusing what ``before`` knows of any."""
        pending = deque(start)
        while pending and len(self._known) < MOST_FOLDERS:  # breadth first: the top matters most
            path = pending.popleft()
            folder = self._folder(path, before.get(path))
            if folder is not None:
                self._keep(path, folder)
                pending += folder.below
        self.cut = bool(pending)

    def _renewed(self, changed: set[str]) -> list[str]:
        """List changed folders again; returns the folders in them that are new or replaced."""
        fresh: list[str] = []
        for path in sorted(changed):
            old = self._known.get(path)
            if old is None:
                continue  # removed together with a folder above it
            folder = self._folder(path, None)
            if folder is None:
                self._forget(path)
                continue
            self._keep(path, folder)
            for name in {*old.below, *folder.below}:
                known = self._known.get(name)
                if known is None or known.inode != self._inode(name):
                    self._forget(name)
                    fresh += [name] if name in folder.below else []
        return fresh

    def _keep(self, path: str, folder: _Folder) -> None:
        self._known[path] = folder
        if folder.watched:
            self._holding.add(path)
        else:
            self._holding.discard(path)

    def _forget(self, path: str) -> None:
        """Forget a folder and all that was below it."""
        pending = [path]
        while pending:
            path = pending.pop()
            self._holding.discard(path)
            self._unread.discard(path)
            folder = self._known.pop(path, None)
            if folder is not None:
                pending += folder.below

    def _inode(self, path: str) -> int:
        try:
            return os.lstat(os.path.join(self.root, path)).st_ino
        except OSError:
            return 0

    def git_folder(self, path: str) -> str | None:
        """The folder that a ``.git`` file points to, relative; None if not in the workspace."""
        full = os.path.join(self.root, path)
        try:
            with open(os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
                data = file.read(8192)
        except OSError:
            return None
        if not data.startswith(b"gitdir: ") or b"\0" in data:
            return None
        named = os.fsdecode(data[8:].rstrip(b"\r\n"))
        target = os.path.realpath(os.path.join(os.path.dirname(full), named))
        below = os.path.relpath(target, os.path.realpath(self.root))
        return None if below.startswith("..") or below == "." else below

    def _folder(self, path: str, known: _Folder | None) -> _Folder | None:
        """The folder as it is now, which is ``known`` itself if it has not changed."""
        full = os.path.join(self.root, path)
        self._unread.discard(path)
        try:
            info = os.lstat(full)
            if not stat.S_ISDIR(info.st_mode):
                return None
            if known is not None and (known.inode, known.changed) == (
                info.st_ino,
                info.st_ctime_ns,
            ):
                return known
            fd = os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            self._unread.add(path)
            return None
        try:
            self._watch.add(fd, path)  # before listing, so that no later change is missed
            below, watched = self._list(path, fd)
        except OSError:
            self._unread.add(path)
            return None
        finally:
            os.close(fd)
        settled = time.time_ns() - info.st_ctime_ns >= _SETTLED_NS
        # A change time of 0 has the folder listed again next time.
        changed = info.st_ctime_ns if settled else 0
        return _Folder(info.st_ino, changed, tuple(below), tuple(watched))

    def _list(self, path: str, fd: int) -> tuple[list[str], list[tuple[str, Kind]]]:
        """The folders below to enter, and the paths to watch."""
        below: list[str] = []
        watched: list[tuple[str, Kind]] = []
        names = set()
        prefix = path + "/" if path else ""
        parts = path.split("/")
        inside_git = ".git" in parts
        of_git = parts[-1] == ".git"
        plain = not inside_git and _DEPENDENCIES.isdisjoint(parts)
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                names.add(name)
                if name == ".git":
                    if entry.is_dir(follow_symlinks=False):
                        watched += _git_paths(prefix + name)
                        below.append(prefix + name)
                    elif path:  # the guard itself looks at the top
                        watched.append((prefix + name, _kind_of(entry)))
                elif name in NAMES:
                    if plain and path:
                        watched.append((prefix + name, "other"))
                elif of_git and name not in _ENTERED:
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    below.append(prefix + name)
                elif inside_git and entry.is_symlink():
                    watched.append((prefix + name, "other"))
        if inside_git and "HEAD" in names:  # elsewhere a submodule may have one of these names
            below = [one for one in below if os.path.basename(one) not in _OF_GIT]
        bare = "HEAD" in names and ("commondir" in names or {"objects", "refs"} <= names)
        if path and (bare or (inside_git and "HEAD" in names)):
            watched += _git_paths(path)
        if bare and not inside_git and path.count("/") < 2:
            watched.append((prefix + "HEAD", "bare"))
        return below, watched


def _kind_of(entry: os.DirEntry[str]) -> Kind:
    return "gitfile" if entry.is_file(follow_symlinks=False) else "other"


def _git_paths(folder: str) -> Iterator[tuple[str, Kind]]:
    """The paths that git obeys in its own folder."""
    if folder == ".git":
        return  # the guard itself looks at this one
    yield f"{folder}/config", "config"
    yield f"{folder}/config.worktree", "config"
    yield f"{folder}/hooks", "hooks"
    yield f"{folder}/commondir", "commondir"


def harmless_git_file(kind: Kind, path: str, data: bytes) -> bool:
    """Whether the file is the ``commondir`` of a linked worktree."""
    worktree = os.path.basename(os.path.dirname(os.path.dirname(path))) == "worktrees"
    return kind == "commondir" and worktree and data.strip() == b"../.."


def naming_programs(data: bytes, inside: str = "", root: str = "") -> set[str] | None:
    """The lines of a git configuration that are not known to be harmless, each with its section.

    None if its syntax is so unusual that its lines cannot be told apart. ``inside`` is the folder
    of the file: a working tree (``core.worktree``) counts as harmless if it lies in ``root``.
    """
    section = ""
    header = ""
    found = set()
    for raw in data.decode("utf-8", "replace").split("\n"):  # git has no other line ending
        line = raw.strip(" \t\r")
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            match = re.fullmatch(r'\[([A-Za-z0-9.-]+)(\s+"[^"\\\]]*")?\]', line)
            if match is None:
                return None
            header, section = line, match[1].lower()
            continue
        key, _, value = line.partition("=")
        key = key.strip(" \t").lower()
        if line.endswith("\\") or not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            return None
        full = f"{section}.{key}"
        if full == "core.worktree" and inside:
            target = os.path.realpath(os.path.join(inside, value.strip(" \t")))
            if target.startswith(os.path.realpath(root) + "/"):
                continue
        if key in _NAMING_PROGRAMS or (
            section not in _HARMLESS_SECTIONS and full not in _HARMLESS_KEYS
        ):
            found.add(f"{header} {line}")
    return found


def without_programs(data: bytes, inside: str, root: str) -> bytes:
    """A copy of the configuration with only its harmless lines; empty if it cannot be parsed."""
    bad = naming_programs(data, inside, root)
    if bad is None:
        return b""
    kept = []
    header = ""
    for raw in data.decode("utf-8", "surrogateescape").split("\n"):
        line = raw.strip(" \t\r").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if line.startswith("["):
            header = line
        if f"{header} {line}" not in bad:
            kept.append(raw)
    return "\n".join(kept).encode("utf-8", "surrogateescape")
