"""Chooses where an agent's tools act: the environment, its checkpoints and its copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentcli.environments.base import Environment
from agentcli.environments.copies import CopiedWorkspace, copied, in_place
from agentcli.environments.host import HostEnvironment
from agentcli.environments.recorded import Recorded
from agentcli.environments.snapshots import Snapshots, folder_of
from agentcli.environments.warm import WarmEnvironment
from agentcli.errors import ConfigError
from agentcli.folders import data_folder
from agentcli.sandbox.confine import Level
from agentcli.settings import Settings

if TYPE_CHECKING:
    from agentcli.environments.ssh import SshEnvironment

LEVELS: dict[str, Level | None] = {
    "auto": None,
    "full": "full",
    "reduced": "reduced",
    "none": "none",
}
"""The level that each setting demands; None means the best that works."""


@dataclass(frozen=True)
class Place:
    """An environment with its parts.

    ``host`` is the environment if it is on this machine; ``recorded`` is the part that keeps
    checkpoints. A ``borrowed`` environment is started and closed by its owner.
    """

    environment: Environment
    host: HostEnvironment | None
    recorded: Recorded | None
    borrowed: bool
    why: Callable[[], str]
    """Says why the level is not a better one, once the environment has started."""

    async def start(self) -> None:
        """Start the environment; raises ``SandboxError`` if that fails."""
        if not self.borrowed:
            await self.environment.start()

    async def aclose(self) -> None:
        """Close the environment."""
        if not self.borrowed:
            await self.environment.aclose()


def place_of(
    name: str, root: Path, settings: Settings, *, looks_only: bool, copy: HostEnvironment | None
) -> Place:
    """The place with this name, ``host``, ``docker:IMAGE`` or ``ssh:HOST``, or ``copy`` if given.

    Workspaces on this machine get checkpoints. Their first scan is at the start or, with
    ``looks_only``, before the first change.

    Raises:
        ConfigError: the settings forbid this place.
    """
    chosen = copy or _environment(name, root, settings)
    host = chosen if isinstance(chosen, HostEnvironment) else None
    recorded = None
    if host is not None and settings.snapshots and copy is None:
        snapshots = Snapshots(str(root), folder_of(data_folder(), str(root)))
        recorded = Recorded(host, snapshots, now=not looks_only)
    return Place(recorded or chosen, host, recorded, copy is not None, lambda: chosen.reason)


def _environment(place: str, root: Path, settings: Settings) -> HostEnvironment | SshEnvironment:
    wanted, network = LEVELS[settings.sandbox], settings.commands_network
    if place == "host":
        return HostEnvironment(root, wanted=wanted, network=network, domains=settings.domains)
    if settings.offline and place.startswith("ssh:"):
        raise ConfigError(
            f"offline: {place} is another machine", hint="Leave out --offline, or use --env host"
        )
    from agentcli.environments.choose import choose

    config = settings.ssh_config or ""
    return choose(
        place,
        root,
        wanted=wanted,
        network=network,
        domains=settings.domains,
        ssh_config=config,
    )


def copies_of(
    settings: Settings, root: Path
) -> Callable[[], AbstractAsyncContextManager[CopiedWorkspace]]:
    """Opens copies of a workspace at its path; see ``in_place``."""
    return functools.partial(
        in_place,
        root,
        wanted=LEVELS[settings.sandbox],
        network=settings.commands_network,
        domains=settings.domains,
    )


def tries_of(
    settings: Settings, root: Path
) -> Callable[[], AbstractAsyncContextManager[HostEnvironment]]:
    """Opens copies to try candidate edits on; nothing on them is kept."""
    return functools.partial(copied, root, wanted=LEVELS[settings.sandbox], kind=WarmEnvironment)
