"""The folder of ``--workspace``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agentcli.errors import WorkspaceError


def workspace_folder(folder: Path, *, writes: bool = False) -> Path:
    """The absolute path of a folder that exists and, with ``writes``, can be written.

    Raises:
        WorkspaceError: it is missing, not a folder, or cannot be written.
    """
    try:
        folder = folder.resolve(strict=True)
        if not folder.is_dir():
            raise WorkspaceError(f"the workspace {folder} is not a folder")
        if writes:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        there = folder.is_dir()
        doing = "written" if there else "used"
        plan = ", or use --mode plan" if writes and there else ""
        raise WorkspaceError(
            f"the workspace {folder} cannot be {doing}: {error.strerror}",
            hint=f"Name another one with --workspace{plan}",
        ) from error
    return folder
