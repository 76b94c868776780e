"""Tests every layer of the sandbox on this machine, for ``agentcli doctor``."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import tempfile
from typing import NamedTuple

from agentcli.errors import SandboxError
from agentcli.sandbox import advice, bwrap, cgroup, landlock, seccomp
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import Sandbox, try_full, try_reduced
from agentcli.sandbox.layered import LayerSupervisor
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import Supervisor

_FICLONE = 0x40049409
_OWN_LOOPBACK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 2)
names = open("/proc/net/dev").read()
raise SystemExit("eth" in names or "wl" in names or "enp" in names)
"""


class Layer(NamedTuple):
    """One layer: its name, whether it works here, and what works or is missing."""

    name: str
    ok: bool
    reason: str


async def probe(supervisor: Supervisor | None = None, near: str | None = None) -> list[Layer]:
    """Try every layer on an empty folder; the existence of a file proves nothing.

    ``near`` is a folder on the same disk as the workspaces.
    """
    own = supervisor is None
    supervisor = supervisor or Supervisor()
    try:
        with tempfile.TemporaryDirectory(prefix="agentcli-doctor-") as folder:
            layers = await _probe(supervisor, policies.build(folder))
            layers.append(await _overlay(folder))
        return [*layers, _reflink(near or tempfile.gettempdir())]
    finally:
        if own:
            await supervisor.aclose()


async def _probe(supervisor: Supervisor, policy: policies.Policy) -> list[Layer]:
    full, why_not = await try_full(supervisor, policy)
    reduced, missing = await try_reduced(supervisor, policy, "")
    version = landlock.version() if sys.platform == "linux" else 0
    filtered = seccomp.supported()
    spaces = reduced is not None and reduced.own_namespaces
    level = "full" if full else "reduced" if reduced else "none"
    why = f"level {level}" if full else f"level {level}: {why_not}; {advice.for_full()}"
    best = full or reduced
    network = await _network(supervisor, best) if best is not None else _NO_NETWORK
    if reduced is not None:
        reduced.close()
    return [
        Layer("level", level != "none", why),
        Layer("namespaces", full is not None, why_not or f"{bwrap.program()} works"),
        Layer(
            "system-call filter",
            filtered,
            "works" if filtered else f"not for {os.uname().machine}, or not in this kernel",
        ),
        Layer(
            "Landlock",
            version > 0,
            f"version {version}" if version else "the kernel has none, or it is switched off",
        ),
        Layer("reduced level", reduced is not None, missing or "works"),
        Layer(
            "namespaces without bubblewrap",
            spaces,
            "work" if spaces else "the kernel refuses them: no private network, /tmp or .git",
        ),
        network,
        _control_groups(),
    ]


_NO_NETWORK = Layer("network", False, "no level holds")


async def _network(supervisor: Supervisor, sandbox: Sandbox) -> Layer:
    interpreter = os.path.realpath(sys.executable)
    launch = sandbox.launch((interpreter, "-I", "-S", "-c", _OWN_LOOPBACK), limits=Limits(10))
    result = await supervisor.exec(launch)
    if result.success:
        return Layer("network", True, "commands have a loopback of their own, and nothing else")
    return Layer("network", False, "commands have no network at all, not even a loopback")


def _control_groups() -> Layer:
    place = cgroup.find() if sys.platform == "linux" else None
    if place is None:
        reason = "not for this user: memory and tasks are watched by samples"
        return Layer("control groups", False, reason)
    return Layer("control groups", True, f"version {place.version}, below {place.memory}")


async def _overlay(folder: str) -> Layer:
    """Whether overlays can stand in for copies of large workspaces (``layered.py``)."""
    lower, base = os.path.join(folder, "lower"), os.path.join(folder, "base")
    for path in (lower, base):
        os.mkdir(path)
    supervisor = LayerSupervisor(lower, base)
    try:
        await asyncio.to_thread(supervisor.start)
    except SandboxError as error:
        return Layer("overlay", False, f"{error.message}; large workspaces have no copies")
    finally:
        await supervisor.aclose()
    return Layer("overlay", True, "works: workspaces of any size have copies")


def _reflink(near: str) -> Layer:
    """Whether the disk with the workspaces can share blocks between files."""
    try:
        with tempfile.TemporaryFile(dir=near) as old, tempfile.TemporaryFile(dir=near) as new:
            old.write(b"x" * 4096)
            old.flush()
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
    except OSError as error:
        reason = f"{near}: {os.strerror(error.errno or 0)}; copies of workspaces cost their size"
        return Layer("reflink", False, reason)
    return Layer("reflink", True, f"works in {near}")
