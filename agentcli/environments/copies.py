"""Copies of a workspace: to try things on, and to show what a command does before it is approved.

Inside the sandbox a copy has the path of the workspace, so that absolute paths refer to the copy
too; ignored folders and ``.git`` are read-only there. If the sandbox has no mounts (level none, or
Landlock alone), a copy has another path, and only ``copied`` is available.

There are three ways to copy, and the first that works is used: files that share their blocks until
one is written (FICLONE); a plain copy; and, if the workspace is too large for that
(``tree.MOST_FILES``, ``tree.MOST_BYTES``), an overlay, for which the kernel must permit mounts
(``sandbox/overlay.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from agentcli.environments import effects, tree, upper
from agentcli.environments.base import Effect
from agentcli.environments.effects import Change
from agentcli.environments.host import HostEnvironment
from agentcli.errors import SandboxError
from agentcli.folders import cache_folder
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level
from agentcli.sandbox.layered import LayerSupervisor
from agentcli.sandbox.policy import Network, Policy
from agentcli.sandbox.removal import remove, remove_abandoned

_PREFIX = "agentcli-copy-"
_SHOWN = (".venv", "venv")
"""If a copy has another path: these are not copied, but readable in the original."""


class _Made(Protocol):
    """A copy, however it was made. ``kept`` is the folder to read changed files from."""

    kept: str

    def changes(self) -> tuple[list[Change], list[str]]:
        """What has changed, and the names of pipes, sockets and devices."""
        ...

    def accept(self, found: Sequence[Change]) -> None:
        """Take note that these changes are in the workspace now."""
        ...


class _Plain:
    """A file-by-file copy."""

    def __init__(self, before: tree.Tree, folder: str) -> None:
        self.kept = folder
        self._before = before
        self._apart = tuple(before.apart)
        self._copied = tree.survey(folder, apart=self._apart).entries

    def changes(self) -> tuple[list[Change], list[str]]:
        after = tree.survey(self.kept, apart=self._apart)
        found = effects.changes(self._before.entries, self._copied, after.entries)
        return found, sorted(set(after.others) - set(self._before.others))

    def accept(self, found: Sequence[Change]) -> None:
        self._copied = tree.survey(self.kept, apart=self._apart).entries


class _Layered:
    """An overlay."""

    def __init__(self, before: tree.Tree, supervisor: LayerSupervisor) -> None:
        self.kept = supervisor.upper
        self._before = before

    def changes(self) -> tuple[list[Change], list[str]]:
        return upper.changes(self._before, self.kept)

    def accept(self, found: Sequence[Change]) -> None:
        pass  # changes are relative to the workspace, which has them now


class CopiedWorkspace(HostEnvironment):
    """A copy at the workspace's path; see ``WorkspaceCopy``."""

    def __init__(
        self,
        root: str,
        before: tree.Tree,
        made: _Made,
        policy: Policy,
        supervisor: LayerSupervisor | None,
        *,
        wanted: Level | None,
    ) -> None:
        self._before = before
        self._made = made
        super().__init__(root, supervisor, wanted=wanted, policy=policy)

    async def effect(self) -> Effect:
        """See ``WorkspaceCopy.effect``."""
        return await asyncio.to_thread(self._describe)

    async def commit(self) -> Effect:
        """See ``WorkspaceCopy.commit``."""
        return await asyncio.to_thread(self._commit)

    def _look(self) -> tuple[list[Change], Effect]:
        found, others = self._made.changes()
        found = effects.real_changes(self.root, self._made.kept, found)
        effect = effects.describe(self.root, self._made.kept, found)
        notes = "".join(f"not applied, as it is not a file: {name}\n" for name in others)
        return found, replace(effect, diff=effect.diff + notes)

    def _describe(self) -> Effect:
        return self._look()[1]

    def _commit(self) -> Effect:
        found, effect = self._look()
        effects.commit(self.root, self._made.kept, found)
        for change in found:
            left = effects.now(self.root, change.path)
            if left is None:
                self._before.entries.pop(change.path, None)
            else:
                self._before.entries[change.path] = left
        self._made.accept(found)
        return effect


@asynccontextmanager
async def in_place(
    root: str | os.PathLike[str],
    *,
    wanted: Level | None = None,
    network: Network = "none",
    domains: Sequence[str] = (),
) -> AsyncIterator[CopiedWorkspace]:
    """A copy of ``root`` at the same path inside; it is removed on exit, committed or not.

    ``wanted``, ``network`` and ``domains`` are as in ``HostEnvironment``.

    Raises:
        SandboxError: the level has no private mounts, or the workspace is too large to copy and no
            overlay can be mounted.
        OSError: the workspace cannot be copied.
    """
    root = os.path.realpath(root)
    policy = policies.build(root, network=network, domains=tuple(domains))
    bases: list[str] = []
    supervisor: LayerSupervisor | None = None
    environment: CopiedWorkspace | None = None
    try:
        before = await asyncio.to_thread(tree.survey, root)
        policy = _policy(policy, before)
        made: _Made
        try:
            made = await asyncio.to_thread(_plain, root, before, bases)
            policy = replace(policy, copy=made.kept)
        except tree.TooLarge as error:
            supervisor = await asyncio.to_thread(_overlay, root, bases, error)
            made = _Layered(before, supervisor)
            policy = replace(policy, copy=supervisor.place, seen=supervisor.seen)
        environment = CopiedWorkspace(root, before, made, policy, supervisor, wanted=wanted)
        await environment.start()
        if not environment.mounts:
            raise SandboxError(
                f"the sandbox's level ({environment.level}) cannot put a copy in its place"
            )
        yield environment
    finally:
        if environment is not None:
            await environment.aclose()
        if supervisor is not None:
            await supervisor.aclose()
        for base in bases:
            await asyncio.to_thread(remove, base)


def _plain(root: str, before: tree.Tree, bases: list[str]) -> _Plain:
    """Make a file-by-file copy; appends its base to ``bases``. Raises ``tree.TooLarge``."""
    bases.append(_base(root))
    folder = os.path.join(bases[-1], "workspace")
    os.mkdir(folder)
    tree.copy(before, root, folder)
    made = _Plain(before, folder)
    _make_mount_points(root, folder, before)
    return made


def _overlay(root: str, bases: list[str], cause: tree.TooLarge) -> LayerSupervisor:
    """Mount an overlay, with its upper folder where the file system permits one.

    Appends each base that it makes to ``bases``.
    """
    reasons = []
    for place in _places(root):
        bases.append(_new_base(place))
        supervisor = LayerSupervisor(root, bases[-1])
        try:
            supervisor.start()
            return supervisor
        except SandboxError as error:
            reasons.append(error.message)
    raise SandboxError(f"{cause.message}, and {reasons[-1] if reasons else 'no folder is outside'}")


def _places(root: str) -> Iterator[str]:
    """Folders outside the workspace that could hold the upper folder of an overlay."""
    for folder in (str(cache_folder() / "copies"), tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            folder = os.path.realpath(folder)
            if os.path.commonpath((root, folder)) != root:
                yield folder


@asynccontextmanager
async def copied(
    root: str | os.PathLike[str],
    *,
    wanted: Level | None = None,
    kind: type[HostEnvironment] = HostEnvironment,
) -> AsyncIterator[HostEnvironment]:
    """An environment in a copy of ``root`` at another path; the copy is removed on exit.

    Raises:
        SandboxError: the wanted level is not available, or the workspace cannot be copied.
    """
    root = os.path.realpath(root)
    base = await asyncio.to_thread(_base, root)
    folder = os.path.join(base, os.path.basename(root))
    environment: HostEnvironment | None = None
    try:
        try:
            os.mkdir(folder)
            before = await asyncio.to_thread(tree.survey, root)
            await asyncio.to_thread(tree.copy, before, root, folder)
        except OSError as error:
            raise SandboxError(
                f"the workspace cannot be copied to {base}: {error.strerror or error}",
                hint="make room there, or set TMPDIR to a folder with more",
            ) from error
        shown = tuple(path for name in _SHOWN if os.path.isdir(path := os.path.join(root, name)))
        for path in shown:
            os.symlink(path, os.path.join(folder, os.path.basename(path)))
        policy = await asyncio.to_thread(policies.build, folder, read=shown)
        environment = kind(folder, wanted=wanted, policy=policy)
        await environment.start()
        yield environment
    finally:
        if environment is not None:
            await environment.aclose()
        await asyncio.to_thread(remove, base)


def _base(root: str) -> str:
    """A new folder for a copy, preferably where it can share blocks with the workspace."""
    return _new_base(_shares_blocks(os.stat(root).st_dev, root) or tempfile.gettempdir())


def _new_base(place: str) -> str:
    remove_abandoned(place, _PREFIX)
    return os.path.realpath(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))


@functools.cache
def _shares_blocks(device: int, root: str) -> str | None:
    """The cache folder, if files there can share blocks with the workspace's, else None."""
    folder = cache_folder() / "copies"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(folder) if tree.can_share(root, str(folder)) else None
    except OSError:
        return None


def _make_mount_points(root: str, folder: str, before: tree.Tree) -> None:
    for name in before.apart:
        there, here = os.path.join(root, name), os.path.join(folder, name)
        if os.path.isdir(there):
            os.makedirs(here, exist_ok=True)
        elif os.path.isdir(os.path.dirname(here)):
            with open(here, "xb"):
                pass


def _policy(policy: Policy, before: tree.Tree) -> Policy:
    shown = tuple(os.path.join(policy.workspace, name) for name in before.apart)
    # The real repository of a linked worktree is readable, but not writable either.
    return replace(policy, read=policy.read + policy.write + shown, write=())
