"""Asking before something that cannot be had for nothing again."""

from __future__ import annotations

import sys

from agentcli.errors import UsageError


def agreed(question: str, *, yes: bool) -> bool:
    """Whether to go on: ``yes``, or what is answered on the terminal.

    Raises:
        UsageError: nobody is there to be asked.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is there to be asked", hint="Add --yes to go on")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
