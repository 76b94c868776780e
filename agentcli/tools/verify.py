"""Runs a task's checks: command lines that must succeed, run like those of the tool ``shell``."""

from __future__ import annotations

from agentcli.errors import ToolError
from agentcli.messages import Outcome
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.report import QUIET, command_output, ending
from agentcli.tools.shell import shell_argv


async def verify(context: ToolContext, command: str) -> ToolOutput:
    """Run one check. The output starts with how it ended; a check that cannot start has failed."""
    result = await context.environment.exec(
        shell_argv(command), limits=context.check, env=QUIET, on_output=context.progress
    )
    how = "passed" if result.success else f"failed ({ending(result, context.check.time_s)})"
    try:
        return command_output(result, f"check {how}", context.output_chars, command)
    except ToolError as error:
        return ToolOutput(f"check failed: {error.message}", Outcome.ERROR)
