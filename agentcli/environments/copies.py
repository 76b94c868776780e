"""Copies of a workspace: to try things on, and to see what a command does before it may.

Inside, a copy stands where the workspace is, so that absolute paths mean the copy as well; ignored
folders and ``.git`` are shown there read-only. Where the sandbox has no mounts of its own (level
none, or Landlock alone), a copy bears another name, and only ``copied`` is to be had.

Two ways, the cheaper that works: files that share their blocks until one is written (FICLONE), else
a plain copy. A workspace of more files than ``tree.MOST_FILES``, or of more bytes to be copied than
``tree.MOST_BYTES``, has no copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from agentcli.config import cache_folder
from agentcli.environments import effects, tree
from agentcli.environments.base import Effect
from agentcli.environments.effects import Change
from agentcli.environments.host import HostEnvironment
from agentcli.errors import SandboxError
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level
from agentcli.sandbox.policy import Network, Policy
from agentcli.sandbox.tree import is_running

_PREFIX = "agentcli-copy-"
_SHOWN = (".venv", "venv")
"""Where a copy bears another name: not copied, but to be read where they are."""


class CopiedWorkspace(HostEnvironment):
    """A copy at the workspace's place; see ``WorkspaceCopy``."""

    def __init__(
        self, root: str, folder: str, before: tree.Tree, policy: Policy, *, wanted: Level | None
    ) -> None:
        self._before = before
        self._folder = folder
        self._copied = tree.survey(folder, apart=tuple(before.apart)).entries
        _make_mount_points(root, folder, before)
        super().__init__(root, wanted=wanted, policy=_policy(policy, folder, before))

    async def effect(self) -> Effect:
        """See ``WorkspaceCopy.effect``."""
        return await asyncio.to_thread(self._describe)

    async def commit(self) -> Effect:
        """See ``WorkspaceCopy.commit``."""
        return await asyncio.to_thread(self._commit)

    def _look(self) -> tuple[tree.Tree, list[Change]]:
        after = tree.survey(self._folder, apart=tuple(self._before.apart))
        found = effects.changes(self._before.entries, self._copied, after.entries)
        return after, effects.real_changes(self.root, self._folder, found)

    def _describe(self) -> Effect:
        after, found = self._look()
        effect = effects.describe(self.root, self._folder, found)
        left = sorted(set(after.others) - set(self._before.others))
        notes = "".join(f"not brought over, being no file: {name}\n" for name in left)
        return replace(effect, diff=effect.diff + notes)

    def _commit(self) -> Effect:
        after, found = self._look()
        effect = self._describe()
        effects.commit(self.root, self._folder, found)
        self._copied = after.entries
        for change in found:
            left = effects.now(self.root, change.path)
            if left is None:
                self._before.entries.pop(change.path, None)
            else:
                self._before.entries[change.path] = left
        return effect


@asynccontextmanager
async def in_place(
    root: str | os.PathLike[str],
    *,
    wanted: Level | None = None,
    network: Network = "none",
    domains: Sequence[str] = (),
) -> AsyncIterator[CopiedWorkspace]:
    """A copy of ``root`` that stands in its place and is gone afterwards, committed or not.

    ``wanted``, ``network`` and ``domains`` are as in ``HostEnvironment``.

    Raises:
        SandboxError: the level has no mounts of its own, or the workspace is too large to copy.
        OSError: it cannot be copied.
    """
    root = os.path.realpath(root)
    base = await asyncio.to_thread(_base, root)
    folder = os.path.join(base, "workspace")
    environment: CopiedWorkspace | None = None
    try:
        os.mkdir(folder)
        before = await asyncio.to_thread(tree.copy, root, folder)
        policy = policies.build(root, network=network, domains=tuple(domains))
        environment = CopiedWorkspace(root, folder, before, policy, wanted=wanted)
        await environment.start()
        if not environment.mounts:
            raise SandboxError(
                f"the sandbox's level ({environment.level}) cannot put a copy in its place"
            )
        yield environment
    finally:
        if environment is not None:
            await environment.aclose()
        await asyncio.to_thread(_remove, base)


@asynccontextmanager
async def copied(
    root: str | os.PathLike[str], *, wanted: Level | None = None
) -> AsyncIterator[HostEnvironment]:
    """An environment in a copy of ``root`` that is gone afterwards, wherever it can be made.

    Raises:
        SandboxError: the level asked for is not to be had, or the workspace is too large to copy.
        OSError: it cannot be copied.
    """
    root = os.path.realpath(root)
    base = await asyncio.to_thread(_base, root)
    folder = os.path.join(base, os.path.basename(root))
    environment: HostEnvironment | None = None
    try:
        os.mkdir(folder)
        await asyncio.to_thread(tree.copy, root, folder)
        shown = tuple(path for name in _SHOWN if os.path.isdir(path := os.path.join(root, name)))
        for path in shown:
            os.symlink(path, os.path.join(folder, os.path.basename(path)))
        policy = policies.build(folder, read=shown)
        environment = HostEnvironment(folder, wanted=wanted, policy=policy)
        await environment.start()
        yield environment
    finally:
        if environment is not None:
            await environment.aclose()
        await asyncio.to_thread(_remove, base)


def _base(root: str) -> str:
    """A new folder for a copy: where it can share blocks with the workspace, if anywhere."""
    folder = _shares_blocks(os.stat(root).st_dev, root)
    _remove_abandoned(folder or tempfile.gettempdir())
    return os.path.realpath(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder))


@functools.cache
def _shares_blocks(device: int, root: str) -> str | None:
    """The cache folder, if files there can share blocks with the workspace's; else None: /tmp."""
    folder = cache_folder() / "copies"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(folder) if tree.can_share(root, str(folder)) else None
    except OSError:
        return None


def _remove(base: str) -> None:
    for folder, below, _ in os.walk(base):
        for name in below:  # one that a command has closed to its owner
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(base, ignore_errors=True)


def _remove_abandoned(folder: str) -> None:
    """Remove copies of processes that were killed before they could."""
    with os.scandir(folder) as entries:
        for entry in entries:
            owner = entry.name.removeprefix(_PREFIX).partition("-")[0]
            if not entry.name.startswith(_PREFIX) or not owner.isdigit():
                continue
            with contextlib.suppress(OSError):
                mine = entry.stat(follow_symlinks=False).st_uid == os.getuid()
                if mine and not is_running(int(owner)):
                    _remove(entry.path)


def _make_mount_points(root: str, folder: str, before: tree.Tree) -> None:
    for name in before.apart:
        there, here = os.path.join(root, name), os.path.join(folder, name)
        if os.path.isdir(there):
            os.makedirs(here, exist_ok=True)
        elif os.path.isdir(os.path.dirname(here)):
            with open(here, "xb"):
                pass


def _policy(policy: Policy, folder: str, before: tree.Tree) -> Policy:
    shown = tuple(os.path.join(policy.workspace, name) for name in before.apart)
    # A linked worktree's real repository can be read, and not written either.
    return replace(policy, read=policy.read + policy.write + shown, write=(), copy=folder)
