"""What each layer of the sandbox says when it is tried, for ``agentcli doctor``."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import NamedTuple

from agentcli.sandbox import bwrap, landlock, seccomp
from agentcli.sandbox import policy as policies
from agentcli.sandbox.confine import try_full, try_reduced
from agentcli.sandbox.process import Supervisor


class Layer(NamedTuple):
    """One layer: its name, whether it holds here, and what holds or is missing."""

    name: str
    ok: bool
    reason: str


async def probe(supervisor: Supervisor | None = None) -> list[Layer]:
    """Try every layer on an empty folder; nothing is judged by a file that exists."""
    own = supervisor is None
    supervisor = supervisor or Supervisor()
    try:
        with tempfile.TemporaryDirectory(prefix="agentcli-doctor-") as folder:
            return await _probe(supervisor, policies.build(folder))
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
    if reduced is not None:
        reduced.close()
    return [
        Layer("level", level != "none", level),
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
    ]
