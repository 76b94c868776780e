"""Runs the user's own programs, such as an editor, on the user's terminal: never confined.

They get the user's environment, but none of the keys that agentcli was given.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentcli.errors import UsageError

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")
_USUAL = ("nano", "vim", "vi")


def editor(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The command of the user's editor: ``$VISUAL``, ``$EDITOR``, else one that is installed.

    Raises:
        UsageError: there is none.
    """
    environ = os.environ if environ is None else environ
    for name in ("VISUAL", "EDITOR"):
        words = shlex.split(environ.get(name, ""))
        if words:
            if shutil.which(words[0], path=environ.get("PATH")) is None:
                raise UsageError(f"${name} names {words[0]}, which is not a program here")
            return tuple(words)
    for name in _USUAL:
        if shutil.which(name, path=environ.get("PATH")):
            return (name,)
    raise UsageError("there is no editor", hint="Set EDITOR to the command of yours")


def run(argv: Sequence[str], *, cwd: Path) -> int:
    """Run a program in the foreground and return its exit code.

    Raises:
        UsageError: it cannot be started.
    """
    env = {name: value for name, value in os.environ.items() if not _SECRET.search(name.upper())}
    try:
        return subprocess.run(list(argv), cwd=cwd, env=env, check=False).returncode
    except OSError as error:
        raise UsageError(f"{argv[0]} cannot be started: {error.strerror}") from error
