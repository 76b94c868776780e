"""``--best-of N``: attempts on copies of a workspace, of which the first that passes is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from agentcli.agent.events import Status
from agentcli.agent.run import RunResult
from agentcli.environments.copies import CopiedWorkspace
from agentcli.environments.host import HostEnvironment
from agentcli.errors import UsageError
from agentcli.settings import Settings
from agentcli.task import Task

Copies = Callable[[], AbstractAsyncContextManager[CopiedWorkspace]]


def check_attempts(task: Task, settings: Settings, mode: str) -> None:
    """Several attempts need something to choose by, and a workspace that can be copied.

    Raises:
        UsageError: they lack it; the message names the task's source where it is a file.
    """
    where = f"{task.source}: " if task.source.endswith(".md") else ""
    if not task.checks:
        raise UsageError(f"{where}--best-of chooses by checks", hint="Add --check CMD")
    if mode == "plan":
        raise UsageError("--best-of keeps changes, and plan mode makes none")
    if (task.env or settings.env) != "host":
        hint = "Use --env host"
        raise UsageError(f"{where}--best-of copies a workspace of this machine", hint=hint)


async def best_of(
    attempts: int,
    copies: Copies,
    attempt: Callable[[HostEnvironment], Awaitable[RunResult]],
    tell: Callable[[str], None],
) -> tuple[RunResult, int]:
    """The first attempt that passes, brought into the workspace; else the last, and nothing.

    The second value is how many attempts there were.
    """
    for number in range(1, attempts + 1):
        tell(f"attempt {number} of {attempts}")
        async with copies() as copy:
            result = await attempt(copy)
            if result.exit_code == 0:
                await copy.commit()
                return result, number
        if result.state.status not in (Status.UNSOLVED, Status.STOPPED):
            return result, number  # another would end the same way
    tell(f"none of {attempts} attempts passed; nothing was changed")
    return result, attempts
