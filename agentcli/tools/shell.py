"""shell: runs a command line in the workspace."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from agentcli.errors import ToolInputError
from agentcli.sandbox.ahead import BASH_OR_SH
from agentcli.sandbox.limits import COMMAND
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.report import QUIET, command_output, ending

MAX_TIME_S = 600
_AT_ONCE_S = 1.0
"""A background command that ends within this time is reported at once."""


def shell_argv(command: str) -> tuple[str, ...]:
    """The argv that runs a command line with bash, or with sh if there is no bash."""
    return (*BASH_OR_SH, command)


def _allowed_s(configured_s: float, asked_s: int) -> float:
    """The time limit. The model may raise the default, but not a limit set by the user."""
    if configured_s == COMMAND.time_s:
        return float(asked_s)
    return configured_s if asked_s == COMMAND.time_s else min(configured_s, asked_s)


async def shell(
    context: ToolContext,
    command: str,
    timeout_s: Annotated[int, {"minimum": 1, "maximum": MAX_TIME_S}] = 120,
    background: bool = False,
) -> ToolOutput:
    """Run a command with bash.

    Args:
        command: The command line.
        timeout_s: Seconds after which it is ended.
        background: Let it run on, without that limit; see the tool jobs.
    """
    if not command.strip():
        raise ToolInputError('"command" is empty', path="command")
    if "\0" in command:
        raise ToolInputError('"command" holds a zero byte', path="command")
    if background:
        return await _in_background(context, command)
    time_s = _allowed_s(context.command.time_s, timeout_s)
    result = await context.environment.exec(
        shell_argv(command),
        limits=replace(context.command, time_s=time_s),
        env=QUIET,
        on_output=context.progress,
    )
    return command_output(result, ending(result, time_s), context.output_chars)


async def _in_background(context: ToolContext, command: str) -> ToolOutput:
    if context.jobs is None or context.on_copy:
        raise ToolInputError("no command can stay in the background here", path="background")
    argv = shell_argv(command)
    job = context.jobs.start(context.environment, command, argv, context.command, QUIET)
    await job.settled(_AT_ONCE_S)
    if job.result is not None:
        head = f"ended at once: {ending(job.result, _AT_ONCE_S)}"
        return command_output(job.result, head, context.output_chars)
    text = job.read(context.output_chars - 200).rstrip("\n")
    head = f'running in the background; id "{job.id}"'
    return ToolOutput(f"{head}\n{text}" if text else head, data={"job": job.id})
