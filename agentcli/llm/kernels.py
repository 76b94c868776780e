"""Builds the local model's native kernels for this processor when they are first needed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from agentcli.errors import SandboxError
from agentcli.folders import cache_folder
from agentcli.model.kernel_build import build_commands, compiler, library_name
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import Launch, Supervisor

# A build usually takes two seconds, and longer on a busy machine.
_LIMITS = Limits(time_s=120, memory_bytes=2 << 30, file_bytes=16 << 20, disk_bytes=64 << 20)


async def built_kernels(supervisor: Supervisor) -> Path | None:
    """The library, from the cache folder or built now.

    None if there is no compiler or the build fails; the model then uses PyTorch alone.
    """
    library = cache_folder() / "kernels" / library_name()
    if library.exists():
        return library
    cc = compiler()
    if cc is None:
        return None
    try:
        library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            for command in build_commands(cc, made):
                launch = Launch(
                    command,
                    env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TMPDIR": folder},
                    cwd="/",
                    limits=_LIMITS,
                    confine=True,
                )
                if not (await supervisor.exec(launch)).success:
                    return None
            os.replace(made, library)  # atomically: another process may be looking for it
    except (OSError, SandboxError):
        return None
    with contextlib.suppress(OSError):
        library.chmod(0o600)
    return library
