"""Asks for confirmation before actions that cannot easily be undone."""

from __future__ import annotations

import sys

from agentcli.errors import UsageError


def agreed(question: str, *, yes: bool) -> bool:
    """Whether to go on: because of ``yes``, or of the answer on the terminal.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on", hint="Add --yes to go on")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
