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


def _allowed_s(configured_s: float, asked_s: int) -> float:
    """The model may ask for more than the default, unless the user has set a limit."""
    if configured_s == COMMAND.time_s:
        return float(asked_s)
    return configured_s if asked_s == COMMAND.time_s else min(configured_s, asked_s)


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
    time_s = _allowed_s(context.command.time_s, timeout_s)
    result = await context.environment.exec(
        shell_argv(command),
        limits=replace(context.command, time_s=time_s),
        env=QUIET,
        on_output=context.progress,
    )
    return told(result, ending(result, time_s), context.output_chars)
