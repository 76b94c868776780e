"""``--best-of N``: attempts on copies of a workspace; the first that passes is kept."""

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
    """Check that a task can be attempted several times.

    Raises:
        UsageError: it has no checks to choose by, or its workspace cannot be copied or changed;
            the message names the task's file, if it has one.
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
    """The first attempt that passes, with its changes brought into the workspace, else the last.

    The second value is the number of attempts made.
    """
    for number in range(1, attempts + 1):
        tell(f"attempt {number} of {attempts}")
        async with copies() as copy:
            result = await attempt(copy)
            if result.exit_code == 0:
                await copy.commit()
                return result, number
        if result.state.status not in (Status.UNSOLVED, Status.STOPPED):
            return result, number  # another attempt would end the same way
    tell(f"none of {attempts} attempts passed; nothing was changed")
    return result, attempts
