"""Layer E: after a command, restores the files that the host would later execute or obey.

Covers: git's hooks, wherever its configuration puts them in the workspace, and that configuration
    (``config``, ``config.worktree``, ``commondir``), ``.envrc``, folders of editors and assistants,
    ``.mcp.json``, ``.agentcli``, and a bare repository planted where git would find it; also such
    files that did not exist before the command; the same in every folder below (``nested.py``),
    where what git itself writes may stay and removals are left alone.
    A virtual environment that existed before starts as before (``startup.py``).
    Whatever is removed goes to a quarantine folder outside the workspace; nothing is destroyed.
Does not cover: the project's own sources, build files and test configuration, which are what the
    command is meant to change; what another command does while this one is being checked; what
    makes the host's git fail or wait without running anything, such as a pipe for an index.

Changes by approved file tools stay, and so do changes made while no command runs: ``approve``
reports the former, and the guard looks only between a command's start and end. What the mount
namespace already keeps read-only is not compared at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from agentcli.sandbox import startup
from agentcli.sandbox.nested import (
    NAMES,
    Kind,
    Nested,
    harmless_git_file,
    naming_programs,
    without_programs,
)

OBEYED = (
    *(".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir", ".agentcli"),
    *(".envrc", ".vscode", ".idea", ".mcp.json", ".devcontainer", ".cursor", ".claude", ".zed"),
    *(".fleet", ".sublime-project", ".gdbinit", ".lldbinit", ".vimrc", ".exrc", ".nvimrc"),
    *(".nvim.lua", ".lvimrc", ".dir-locals.el", ".pdbrc", ".windsurf", ".gemini", ".codex"),
    *(".kiro", ".roo", ".continue"),
)
"""Relative to the workspace; files or folders."""

GIT_OBEYED = ("config", "hooks", "config.worktree", "commondir", "gitdir")
"""In a repository's folder outside the workspace; read-only if they exist, else removed if made."""

_LARGEST = 4 << 20  # bytes of one file; the content of larger ones is not kept for restoring
_MOST = 2000  # files of one folder
_MOST_LINES = 50  # of one report
_TOO_MANY = "too many files"

_T = TypeVar("_T")


class _Entry(NamedTuple):
    """One file, link or folder as it was; ``data`` is None if its content is not kept."""

    kind: int
    mode: int
    signature: tuple[int, int, int]
    data: bytes | str | None


class Guard:
    """Watches one workspace. ``begin`` before a command, ``end`` after it; calls may overlap."""

    def __init__(
        self,
        root: str,
        quarantine: str,
        more: tuple[str, ...] = (),
        outside: tuple[str, ...] = (),
    ) -> None:
        """``more`` adds paths to OBEYED; ``outside`` are writable folders, maybe repositories."""
        self.root = root
        self._outside = outside
        self._absent: list[str] = []  # what git would obey in them, and does not exist
        self.quarantine = quarantine
        self._obeyed = (*OBEYED, *more)
        self._running = 0
        self._before: dict[str, _Entry] = {}
        self._nested = Nested(root)
        self._nested_before: dict[str, tuple[_Entry, Kind]] = {}
        self._said_cut = False
        self._venvs_before: dict[str, dict[str, _Entry]] = {}
        self._git_before: tuple[int, int] | None = None

    def survey(self) -> None:
        """Walk through all folders once. It takes a while, and may run in a thread."""
        self._nested.find()

    @property
    def busy(self) -> bool:
        """Whether any command is running."""
        return self._running > 0

    def close(self) -> None:
        """Stop watching the workspace. It takes 10 ms in the kernel, and may run in a thread."""
        self._nested.close()

    def begin(self) -> None:
        """A command is about to start."""
        if self._running == 0:
            self._git_before = _identity(self._full(".git"))
            self._absent = list(_absent_in(self._outside))
            self._before = dict(self._look())
            self._nested_before = self._look_below()
            self._venvs_before = self._look_into_venvs()
        self._running += 1

    def approve(self, path: str, *, removed: bool = False) -> None:
        """Accept a change that a file tool has just made, with the user's consent."""
        if not self._running:
            return
        relative = os.path.relpath(os.path.join(self.root, path), self.root)
        venv = relative.partition("/")[0]
        if venv in self._venvs_before:
            now = self._look_into_venvs().get(venv, {})
            _renew(self._venvs_before[venv], now, relative, removed)
        if self._is_obeyed(relative):
            _renew(self._before, dict(self._look()), relative, removed)
            _renew(self._nested_before, self._look_below(), relative, removed)

    def end(self, read_only: bool) -> list[str]:
        """A command has ended; returns one line for each path that was put back.

        ``read_only`` means that what existed at its start was read-only for the command, so that
        it can only have added paths.
        """
        self._running -= 1
        said = self._check_git()  # first, since everything below .git depends on it
        said += [self._remove(path) for path in self._absent if os.path.lexists(path)]
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
        said += self._check_below()
        said += self._check_venvs()
        said = [line for line in said if line]
        if len(said) > _MOST_LINES:
            said[_MOST_LINES:] = [f"{len(said) - _MOST_LINES} more paths likewise"]
        return said

    def _check_below(self) -> list[str]:
        """The same in the folders below. Removals there are harmless and are left alone."""
        said = []
        after = self._look_below()
        # A moved folder takes its contents along.
        moved = {
            (entry.signature[0], entry.data)
            for path, (entry, _) in self._nested_before.items()
            if path not in after
        }
        for path in sorted(after, key=lambda p: (p.count("/"), p)):
            entry, kind = after[path]
            before = self._nested_before.get(path)
            old = before[0] if before is not None else None
            if old is not None and old[:2] + old[3:] == entry[:2] + entry[3:]:
                continue
            same = (entry.signature[0], entry.data)
            if old is None and entry.data is not None and same in moved:
                continue
            if self._harmless_below(path, entry, kind, old):
                continue
            if not os.path.lexists(self._full(path)):
                continue  # removed with its folder
            if old is not None:
                said.append(self._put_back(path, old))
            elif kind == "config" and isinstance(entry.data, bytes):
                said.append(self._clean(path, entry.data))
            else:
                said.append(self._remove(path))
        if self._nested.cut and not self._said_cut:
            self._said_cut = True
            said.append("too many folders: repositories in the deepest ones are not watched")
        return said

    def _check_venvs(self) -> list[str]:
        """Restore the start files of environments that existed before; new ones may stay."""
        said = []
        after = self._look_into_venvs()
        for venv, before in self._venvs_before.items():
            if not os.path.isdir(self._full(venv)) or f"{venv}/pyvenv.cfg" not in before:
                continue
            now = after.get(venv, {})
            for path in sorted(before.keys() | now.keys()):
                old, new = before.get(path), now.get(path)
                if old is None and not os.path.lexists(self._full(path)):
                    continue  # removed with its folder
                of_package = startup.comes_with_packages(path)
                if old and new and (old.kind, old.data) == (new.kind, new.data):
                    if old.mode == new.mode or of_package:
                        continue
                elif of_package and self._may_come(venv, path, new):
                    continue
                said.append(self._put_back(path, old) if old else self._remove(path))
        return said

    def _may_come(self, venv: str, path: str, new: _Entry | None) -> bool:
        """Whether an installer may have removed the file, or has installed exactly this one."""
        if new is None:
            return True
        data = new.data
        return isinstance(data, bytes) and startup.is_recorded(self._full(venv), path, data)

    def _look_into_venvs(self) -> dict[str, dict[str, _Entry]]:
        return {
            venv: {found: entry for path in paths for found, entry in self._look_at(path)}
            for venv, paths in startup.of_venvs(self.root).items()
        }

    def _is_obeyed(self, path: str) -> bool:
        if any(path == name or path.startswith(name + "/") for name in self._obeyed):
            return True
        return not NAMES.union({".git"}).isdisjoint(path.split("/"))

    def _look_below(self) -> dict[str, tuple[_Entry, Kind]]:
        found: dict[str, tuple[_Entry, Kind]] = {}
        for base, kind in self._nested.find().items():
            for path, entry in self._look_at(base):
                found[path] = (entry, kind)
        return found

    def _harmless_below(self, path: str, entry: _Entry, kind: Kind, old: _Entry | None) -> bool:
        if stat.S_ISDIR(entry.kind):
            return kind == "hooks" and entry.data is None
        if kind == "hooks":
            return stat.S_ISREG(entry.kind) and path.endswith(".sample")
        if not isinstance(entry.data, bytes):
            return False
        if kind == "config":
            inside = os.path.dirname(self._full(path))
            bad = naming_programs(entry.data, inside, self.root)
            known: set[str] | None = set()
            if old is not None and isinstance(old.data, bytes):
                known = naming_programs(old.data, inside, self.root)
            return bad is not None and known is not None and bad <= known
        if kind == "gitfile":
            return self._nested.git_folder(path) is not None  # that folder is watched
        return harmless_git_file(kind, path, entry.data)

    def _clean(self, path: str, data: bytes) -> str:
        """Reduce a new repository's configuration to its harmless lines."""
        said = self._remove(path)
        full = self._full(path)
        kept = without_programs(data, os.path.dirname(full), self.root)
        try:
            with open(full, "xb") as file:
                file.write(kept)
        except OSError:
            return said
        return said.replace("removed, as", "lines that name programs removed, as")

    def _check_git(self) -> list[str]:
        """Move a repository back that was moved away, and remove whatever took its place."""
        full = self._full(".git")
        now = _identity(full)
        if now == self._git_before:
            return []
        said = []
        if now is not None and (self._git_before is not None or not stat.S_ISDIR(now[0])):
            said.append(self._remove(".git"))
        if self._git_before is not None and not os.path.lexists(full):
            for name in os.listdir(self.root):
                if _identity(self._full(name)) == self._git_before and _is_repository(
                    self._full(name)
                ):
                    os.rename(self._full(name), full)
                    return [*said, f".git: moved back from {name}"]
            said.append(".git: missing since the command")
        return said

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _look(self) -> Iterator[tuple[str, _Entry]]:
        real: dict[str, bool] = {}  # nearly all have the same parent
        for name in present(self.root, self._obeyed):
            parent = os.path.dirname(name)
            if parent not in real:
                identity = _identity(self._full(parent))
                real[parent] = identity is not None and stat.S_ISDIR(identity[0])
            if real[parent]:
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
            if known is None and current in self._nested_before:
                known = self._nested_before[current][0]
            if known is None:
                known = self._venvs_before.get(path.partition("/")[0], {}).get(current)
            data: bytes | str | None = None
            if known is not None and known.signature == signature:
                data = known.data  # unchanged: nobody but the kernel sets a change time
            elif stat.S_ISLNK(info.st_mode):
                data = os.readlink(full)
            elif stat.S_ISREG(info.st_mode) and info.st_size <= _LARGEST:
                with contextlib.suppress(OSError), open(full, "rb") as file:
                    data = file.read()
            if stat.S_ISDIR(info.st_mode):
                data = None
                with contextlib.suppress(OSError):
                    names = os.listdir(full)
                    if len(names) > _MOST:  # the rest is not looked at
                        data = _TOO_MANY
                    pending += [f"{current}/{name}" for name in names[:_MOST]]
            kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
            yield current, _Entry(kind, mode, signature, data)

    def _harmless(self, path: str, entry: _Entry) -> bool:
        """Whether a new path can stay: it is what git itself creates in a new repository."""
        if path == ".git/hooks":
            return stat.S_ISDIR(entry.kind) and entry.data is None
        if path.startswith(".git/hooks/"):
            return stat.S_ISREG(entry.kind) and path.endswith(".sample")
        if path == ".git/config":
            return isinstance(entry.data, bytes) and naming_programs(entry.data) == set()
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
            return ""  # the parent sorts before its contents, and has been put back already
        if os.path.lexists(full) and not (stat.S_ISDIR(entry.kind) and _can_stay(full)):
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
            return target
        except (OSError, RecursionError):  # RecursionError for folders a thousand deep
            pass
        beside = f"{full}.{stamp}.agentcli"  # a pipe, for one, cannot move to another disk
        try:
            os.rename(full, beside)
        except OSError:
            return None
        return beside


def _absent_in(folders: Iterable[str]) -> Iterator[str]:
    """What git would obey in these repositories and their working trees, but does not exist."""
    for folder in folders:
        if not os.path.isfile(f"{folder}/HEAD"):
            continue
        trees = f"{folder}/worktrees"
        names = os.listdir(trees) if os.path.isdir(trees) else []
        for place in (folder, *(f"{trees}/{name}" for name in names)):
            for name in GIT_OBEYED:
                if not os.path.lexists(f"{place}/{name}"):
                    yield f"{place}/{name}"


def present(root: str, paths: Iterable[str]) -> list[str]:
    """The paths below ``root`` whose first part may exist; lists the folder only once.

    The comparison ignores case, as some file systems do.
    """
    try:
        there = {name.casefold() for name in os.listdir(root)}
    except OSError:
        return list(paths)
    return [path for path in paths if path.partition("/")[0].casefold() in there]


def _renew(known: dict[str, _T], now: Mapping[str, _T], path: str, removed: bool) -> None:
    """Update what is known about one path and the folders above it.

    Nothing else is updated: what a command planted in the meantime stays unknown.
    """
    for found in [name for name in known if name == path or name.startswith(f"{path}/")]:
        del known[found]
    for found, entry in now.items():
        if path.startswith(f"{found}/") or (found == path and not removed):
            known[found] = entry


def _identity(path: str) -> tuple[int, int] | None:
    """Kind and inode of a path, without following links; None if nothing is there."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return stat.S_IFMT(info.st_mode), info.st_ino


def _can_stay(folder: str) -> bool:
    """Whether this is a folder of which every file has been looked at."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return False
    try:
        return len(os.listdir(folder)) <= _MOST
    except OSError:
        return False


def _is_repository(folder: str) -> bool:
    """An inode alone tells nothing, as that of a removed folder is given to the next one."""
    return all(os.path.exists(os.path.join(folder, name)) for name in ("HEAD", "objects"))
