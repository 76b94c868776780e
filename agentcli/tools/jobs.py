"""jobs: lists, reads and stops background commands."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from agentcli.errors import ToolInputError
from agentcli.prompts import Prompts
from agentcli.text import one_line
from agentcli.tools.background import TIME_S, Job, Jobs
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool
from agentcli.tools.report import ending

MAX_WAIT_S = 300


def jobs_tool(prompts: Prompts, running: Jobs) -> Tool:
    """Make the tool; raises ``ConfigError`` if its prompt is missing."""

    async def jobs(
        context: ToolContext,
        action: Literal["list", "read", "kill"] = "list",
        id: str = "",
        wait_s: Annotated[int, {"minimum": 0, "maximum": MAX_WAIT_S}] = 0,
    ) -> ToolOutput:
        """Look after the commands in the background.

        Args:
            action: List them all, read what one has printed since it was last read, or kill one.
            id: Which one to read or to kill.
            wait_s: For read: seconds to wait for something new.
        """
        if action == "list":
            rows = [f"{job.id}\t{state_of(job)}\t{one_line(job.command, 200)}" for job in running]
            return ToolOutput("\n".join(rows) or "no background commands")
        if not id:
            raise ToolInputError(f'"id" is missing: which one to {action}', path="id")
        job = running.get(id)
        if action == "read":
            await job.news(wait_s)
        elif job.running:
            await job.kill()
        return ToolOutput(job_output(job, context.output_chars))

    return tool(
        jobs,
        # It changes nothing except what the tool shell has started.
        ToolKind.READ,
        description=prompts.get("tools/jobs"),
        requires=frozenset({"process"}),
        timeout_s=MAX_WAIT_S + 30.0,
    )


def state_of(job: Job) -> str:
    """``running for 12 s``, ``exit code 1``, ``killed``, or why it was ended."""
    if job.running:
        return f"running for {time.monotonic() - job.started:.0f} s"
    return "killed" if job.result is None else ending(job.result, TIME_S)


def job_output(job: Job, limit: int) -> str:
    """The job's state, and its output since the last read."""
    text = job.read(limit - 200).rstrip("\n")
    return f"[{job.id}: {state_of(job)}]\n{text or '[nothing new]'}"
