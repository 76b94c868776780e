"""The local model's kernels, built for this processor when they are first wanted."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from agentcli.config import cache_folder
from agentcli.errors import SandboxError
from agentcli.model.kernel_build import build_commands, compiler, library_name
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.process import Launch, Supervisor

# Two seconds are usual; a busy machine takes longer.
_LIMITS = Limits(time_s=120, memory_bytes=2 << 30, file_bytes=16 << 20, disk_bytes=64 << 20)


async def built_kernels(supervisor: Supervisor) -> Path | None:
    """The library, from the cache folder or made now; None without a compiler, or where it fails:
    the model then computes with PyTorch alone."""
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
            os.replace(made, library)  # whole at once: another process may be looking
    except (OSError, SandboxError):
        return None
    with contextlib.suppress(OSError):
        library.chmod(0o600)
    return library
