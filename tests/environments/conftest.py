"""A remote machine and a container image, made once for all tests of environments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.environments.far import FarEnd, Missing, container_cli, far_end


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarEnd]:
    """An SSH server on loopback."""
    try:
        with far_end(tmp_path_factory.mktemp("far")) as far:
            yield far
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """A docker or podman command that has IMAGE."""
    try:
        with container_cli(tmp_path_factory.mktemp("images")) as cli:
            yield cli
    except Missing as reason:
        pytest.skip(str(reason))
