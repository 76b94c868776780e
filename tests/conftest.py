"""Fixtures for every test: a workspace, scripted model servers and the command line."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from agentcli.sandbox.process import Supervisor
from tests.running import Cli, share_kernels
from tests.server import Script, ScriptedServer

# A shell starts background commands with SIGINT ignored, and their processes inherit that; tests
# send it to processes that have to end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Serve = Callable[..., ScriptedServer]

# Every run generates the same examples, so a failure can be reproduced on any machine.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collection imports thousands of modules, which leaves hardly any garbage to look for.

    Later collections skip what has been imported by then.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """A supervisor process shared by all tests."""
    supervisor = Supervisor()
    supervisor.start()
    yield supervisor
    supervisor.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts scripted servers; they stop when the test ends."""
    with ExitStack() as stack:

        def start(script: Script, *, repeat: bool = False) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(script, repeat=repeat))

        yield start


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    home = tmp_path / "home"
    home.mkdir()
    share_kernels(home)
    return Cli(home)
