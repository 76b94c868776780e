"""Creates environments by name: ``host``, ``docker:IMAGE`` or ``ssh:HOST[:FOLDER]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentcli.environments.docker import DockerEnvironment
from agentcli.environments.host import HostEnvironment
from agentcli.environments.ssh import SshEnvironment, split_place
from agentcli.errors import CapabilityError
from agentcli.sandbox.confine import Level
from agentcli.sandbox.policy import Network


def choose(
    name: str,
    workspace: Path,
    *,
    wanted: Level | None = None,
    network: Network = "none",
    domains: Sequence[str] = (),
    ssh_config: str = "",
) -> HostEnvironment | SshEnvironment:
    """Create the named environment, without starting it.

    Raises:
        CapabilityError: the name is unknown, or that kind of environment lacks what is wanted.
        WorkspaceError: the workspace is not a folder.
        ConfigError: the list of domains is invalid.
    """
    kind, _, rest = name.partition(":")
    if kind == "docker" and rest:
        if network == "allow":
            raise CapabilityError(
                f'environment "{name}": a container has no network or a full one, '
                "not a list of domains"
            )
        return DockerEnvironment(workspace, rest, wanted=wanted, open_network=network == "full")
    if kind == "ssh" and rest:
        host, folder = split_place(rest)
        return SshEnvironment(host, folder, config=ssh_config)
    if name != "host":
        raise CapabilityError(
            f'there is no environment "{name}"',
            hint="There are: host, docker:IMAGE, ssh:HOST[:FOLDER]",
        )
    return HostEnvironment(workspace, wanted=wanted, network=network, domains=domains)
