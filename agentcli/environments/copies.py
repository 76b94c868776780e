"""Copies of a workspace to try things on: what happens there leaves no trace."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentcli.environments.base import Environment
from agentcli.environments.host import HostEnvironment
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Level

_LEFT_OUT = (".git", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
_SHOWN = (".venv", "venv")
"""Not copied, but to be read where they are."""


@asynccontextmanager
async def copied(
    root: str | os.PathLike[str], *, wanted: Level | None = None
) -> AsyncIterator[Environment]:
    """An environment in a copy of ``root`` that is gone afterwards.

    Raises:
        SandboxError: the level asked for is not to be had.
        OSError: it cannot be copied.
    """
    root = os.path.realpath(root)
    folder = await asyncio.to_thread(_copy, root)
    environment: HostEnvironment | None = None
    try:
        shown = tuple(path for name in _SHOWN if os.path.isdir(path := os.path.join(root, name)))
        policy = policies.build(folder, read=shown)
        environment = HostEnvironment(folder, wanted=wanted, policy=policy)
        await environment.start()
        yield environment
    finally:
        if environment is not None:
            await environment.aclose()
        await asyncio.to_thread(shutil.rmtree, os.path.dirname(folder), ignore_errors=True)


def _copy(root: str) -> str:
    folder = os.path.realpath(tempfile.mkdtemp(prefix="agentcli-try-"))
    target = os.path.join(folder, os.path.basename(root))
    ignored = shutil.ignore_patterns(*_LEFT_OUT, *_SHOWN)
    shutil.copytree(root, target, symlinks=True, ignore=ignored)
    for name in _SHOWN:
        if os.path.isdir(os.path.join(root, name)):
            os.symlink(os.path.join(root, name), os.path.join(target, name))
    return target
