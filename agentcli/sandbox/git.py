"""Runs git for agentcli itself, on repositories that are not trusted.

Covers: hooks, file-system monitors and pagers that a repository or a session may have planted do
    not run; a planted bare repository is not used; nothing is fetched.
Does not cover: filters that the user's own configuration defines; they run with the user's rights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agentcli.sandbox.outside import output_of

_SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.quotePath=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
)
_TIME_S = 120.0

DIFF = (
    *("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--find-renames"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
"""``git diff`` in its own format, whatever the user's configuration says."""


def git(
    folder: Path,
    *arguments: str,
    environ: Mapping[str, str],
    own: Mapping[str, str] | None = None,
) -> str:
    """What a git command prints in a folder. ``own`` adds variables, such as GIT_INDEX_FILE.

    Raises:
        OSError: git cannot be started, failed or took too long; the message says why.
    """
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = ["git", *settings, "-C", str(folder), *arguments]
    return output_of(command, environ, time_s=_TIME_S, own=own)
