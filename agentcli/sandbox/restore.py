"""Layer E: what the host would later execute or obey is as it was when a command has ended.

Covers: git's hooks and configuration (``config``, ``config.worktree``, ``commondir``), ``.envrc``,
    folders of editors and assistants, ``.mcp.json``, ``.agentcli``, and a bare repository planted
    where git would find it; also what was missing before the command. Whatever is taken away goes
    to a quarantine folder outside the workspace, nothing is destroyed.
Does not cover: the project's own sources, build files and test configuration, which are what the
    command is meant to change; what another command does while this one is being checked.

Changes that approved file tools make, or that happen while no command runs, stay: they are told
apart by ``approve`` and by looking only between a command's start and its end. What the mount
namespace already keeps read-only is not compared at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from typing import NamedTuple

OBEYED = (
    *(".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir", ".agentcli"),
    *(".envrc", ".vscode", ".idea", ".mcp.json", ".devcontainer", ".cursor", ".claude", ".zed"),
    *(".fleet", ".sublime-project", ".gdbinit", ".lldbinit", ".vimrc", ".exrc", ".nvimrc"),
)
"""Relative to the workspace; files or folders."""

_LARGEST = 4 << 20  # bytes of one file that is kept for putting it back
_MOST = 2000  # files of one folder

# What `git init` and ordinary work write; other keys can name programs that git then runs.
_HARMLESS_SECTIONS = frozenset({"user", "remote", "branch", "submodule"})
_HARMLESS_KEYS = frozenset(
    {
        *("core.repositoryformatversion", "core.filemode", "core.bare", "core.logallrefupdates"),
        *("core.ignorecase", "core.symlinks", "core.precomposeunicode", "core.autocrlf"),
        *("extensions.objectformat", "extensions.refstorage", "gc.auto"),
        *("init.defaultbranch", "pull.rebase", "push.default"),
    }
)
_NAMING_PROGRAMS = frozenset({"uploadpack", "receivepack", "vcs", "proxy", "update"})


class _Entry(NamedTuple):
    """One file, link or folder as it was; ``data`` is None where it is not kept."""

    kind: int
    mode: int
    signature: tuple[int, int, int]
    data: bytes | str | None


class Guard:
    """Watches one workspace. ``begin`` before a command, ``end`` after it; calls may overlap."""

    def __init__(self, root: str, quarantine: str) -> None:
        self.root = root
        self.quarantine = quarantine
        self._running = 0
        self._before: dict[str, _Entry] = {}
        self._bare_before: set[str] = set()
        self._git_before: tuple[int, int] | None = None

    def begin(self) -> None:
        """A command is about to start."""
        if self._running == 0:
            self._git_before = _identity(self._full(".git"))
            self._before = dict(self._look())
            self._bare_before = set(_bare_folders(self.root))
        self._running += 1

    def approve(self, path: str) -> None:
        """A file tool has just written this path with the user's consent."""
        relative = os.path.relpath(os.path.join(self.root, path), self.root)
        if self._running and _is_obeyed(relative):
            self._before.update(self._look())

    def end(self, read_only: bool) -> list[str]:
        """A command has ended; returns one line for each path that was put back.

        ``read_only``: the command saw what existed at its start read-only, so that only new
        paths can be its work.
        """
        self._running -= 1
        said = self._check_git()  # first, as everything below .git depends on it
        after = dict(self._look())
        for path in sorted(after.keys() - self._before.keys(), key=lambda p: (p.count("/"), p)):
            if os.path.lexists(self._full(path)) and not self._harmless(path, after[path]):
                said.append(self._remove(path))
        for path, entry in sorted(self._before.items()):
            if not read_only or stat.S_ISLNK(entry.kind):
                now = after.get(path)
                if now is None or (now.kind, now.mode, now.data) != (
                    entry.kind,
                    entry.mode,
                    entry.data,
                ):
                    said.append(self._put_back(path, entry))
        for folder in sorted(set(_bare_folders(self.root)) - self._bare_before):
            said.append(self._remove(os.path.join(folder, "HEAD")))
        return [line for line in said if line]

    def _check_git(self) -> list[str]:
        """A repository that was moved away comes back; nothing else may stand in its place."""
        full = self._full(".git")
        now = _identity(full)
        if now == self._git_before:
            return []
        said = []
        if now is not None and (self._git_before is not None or not stat.S_ISDIR(now[0])):
            said.append(self._remove(".git"))
        if self._git_before is not None and not os.path.lexists(full):
            for name in os.listdir(self.root):
                if _identity(self._full(name)) == self._git_before:
                    os.rename(self._full(name), full)
                    return [*said, f".git: moved back from {name}"]
            said.append(".git: missing since the command")
        return said

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _look(self) -> Iterator[tuple[str, _Entry]]:
        for name in OBEYED:
            parent = self._full(os.path.dirname(name))
            if os.path.isdir(parent) and not os.path.islink(parent):
                yield from self._look_at(name)

    def _look_at(self, path: str) -> Iterator[tuple[str, _Entry]]:
        pending = [path]
        count = 0
        while pending and count < _MOST:
            count += 1
            current = pending.pop()
            full = self._full(current)
            try:
                info = os.lstat(full)
            except OSError:
                continue
            signature = (info.st_ino, info.st_size, info.st_ctime_ns)
            known = self._before.get(current)
            data: bytes | str | None = None
            if known is not None and known.signature == signature:
                data = known.data  # unchanged: nobody but the kernel sets a change time
            elif stat.S_ISLNK(info.st_mode):
                data = os.readlink(full)
            elif stat.S_ISREG(info.st_mode) and info.st_size <= _LARGEST:
                with contextlib.suppress(OSError), open(full, "rb") as file:
                    data = file.read()
            if stat.S_ISDIR(info.st_mode):
                with contextlib.suppress(OSError):
                    pending += [f"{current}/{name}" for name in os.listdir(full)]
            kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
            yield current, _Entry(kind, mode, signature, data)

    def _harmless(self, path: str, entry: _Entry) -> bool:
        """Whether a new path can stay: what git itself lays down in a new repository."""
        if path == ".git/hooks":
            return stat.S_ISDIR(entry.kind)
        if path.startswith(".git/hooks/"):
            return stat.S_ISREG(entry.kind) and path.endswith(".sample")
        if path == ".git/config":
            return isinstance(entry.data, bytes) and _harmless_config(entry.data)
        return False

    def _remove(self, path: str) -> str:
        """Move to quarantine."""
        full = self._full(path)
        target = self._set_aside(full, path)
        if target is None:
            return f"{path}: cannot be removed; look at it before you run anything here"
        return f"{path}: removed, as the host would obey it (kept as {target})"

    def _put_back(self, path: str, entry: _Entry) -> str:
        full = self._full(path)
        kept = ""
        parent = os.path.dirname(full)
        if os.path.islink(parent):
            return ""  # the parent itself is put back first, being sorted before
        if os.path.lexists(full) and not (stat.S_ISDIR(entry.kind) and os.path.isdir(full)):
            target = self._set_aside(full, path)
            kept = f" (the changed one is kept as {target})" if target else ""
        try:
            os.makedirs(parent, exist_ok=True)
            if stat.S_ISDIR(entry.kind):
                os.makedirs(full, exist_ok=True)
            elif isinstance(entry.data, str):
                os.symlink(entry.data, full)
            elif entry.data is not None:
                with open(full, "xb") as file:
                    file.write(entry.data)
            else:
                return f"{path}: changed, and too large to be put back{kept}"
            if not stat.S_ISLNK(entry.kind):
                os.chmod(full, entry.mode)
        except OSError as error:
            return f"{path}: changed, and cannot be put back: {error.strerror}{kept}"
        return f"{path}: put back as it was before the command{kept}"

    def _set_aside(self, full: str, path: str) -> str | None:
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns()}"
        target = os.path.join(self.quarantine, stamp, path.replace("/", "_"))
        try:
            os.makedirs(os.path.dirname(target), mode=0o700)
            shutil.move(full, target)
        except OSError:
            return None
        return target


def _identity(path: str) -> tuple[int, int] | None:
    """Kind and inode of what is there, links not followed."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return stat.S_IFMT(info.st_mode), info.st_ino


def _is_obeyed(path: str) -> bool:
    return any(path == name or path.startswith(name + "/") for name in OBEYED)


def _bare_folders(root: str) -> Iterator[str]:
    """Folders (relative, two levels deep) that git would take for a bare repository."""
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                entries = {entry.name: entry for entry in found}
        except OSError:
            continue
        if entries.keys() >= {"HEAD", "objects", "refs"}:
            yield folder
        if depth < 2 and len(entries) < _MOST:
            for name, entry in entries.items():
                if name not in (".git", "objects", "refs") and entry.is_dir(follow_symlinks=False):
                    pending.append((os.path.join(folder, name), depth + 1))


def _harmless_config(data: bytes) -> bool:
    section = ""
    for line in data.decode("utf-8", "replace").splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            header, _, rest = line[1:].partition("]")
            section = header.split()[0].lower() if header.split() else ""
            if rest.strip():
                return False  # a key on the header's line: legal, but nobody writes it
            continue
        key = line.partition("=")[0].strip().lower()
        if line.endswith("\\") or key in _NAMING_PROGRAMS:
            return False
        if section not in _HARMLESS_SECTIONS and f"{section}.{key}" not in _HARMLESS_KEYS:
            return False
    return True
