"""shell: one command line in the workspace."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from agentcli.errors import ToolInputError
from agentcli.sandbox.limits import COMMAND
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.report import QUIET, ending, told

MAX_TIME_S = 600

_BASH_OR_SH = 'if [ -x /bin/bash ]; then exec /bin/bash -c "$1"; else exec /bin/sh -c "$1"; fi'


def shell_argv(command: str) -> tuple[str, ...]:
    """How a command line is run: by bash where there is one, else by sh."""
    return ("/bin/sh", "-c", _BASH_OR_SH, "sh", command)


async def shell(
    context: ToolContext,
    command: str,
    timeout_s: Annotated[int, {"minimum": 1, "maximum": MAX_TIME_S}] = 120,
) -> ToolOutput:
    """Run a command with bash.

    Args:
        command: The command line.
        timeout_s: Seconds after which it is ended.
    """
    if not command.strip():
        raise ToolInputError('"command" is empty', path="command")
    if "\0" in command:
        raise ToolInputError('"command" holds a zero byte', path="command")
    result = await context.environment.exec(
        shell_argv(command),
        limits=replace(COMMAND, time_s=float(timeout_s)),
        env=QUIET,
        on_output=context.progress,
    )
    return told(result, ending(result, timeout_s), context.output_chars)
