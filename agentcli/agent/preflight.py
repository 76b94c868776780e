"""Validates the task, its resources and the environment before the first step.

All problems are reported together, so that they can be fixed together. A run with a problem ends
before its first step.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agentcli.agent.events import PreflightIssue, StopReason
from agentcli.agent.stop import Stop, Stopped, stop_for
from agentcli.agent.stream import Stream
from agentcli.environments.base import Environment
from agentcli.sandbox.limits import Limits
from agentcli.task import Resource, Task
from agentcli.tools.base import ToolSpec

_ENVIRONMENT = re.compile(r"host|(docker|ssh):\S+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KINDS = {"file": "file", "folder": "dir", "image": "file"}
_LOOKING = Limits(time_s=10.0)


class Code(StrEnum):
    """The codes of problems."""

    TASK_ID_INVALID = "TASK_ID_INVALID"
    TASK_OBJECTIVE_INVALID = "TASK_OBJECTIVE_INVALID"
    TASK_BUDGET_STEPS_INVALID = "TASK_BUDGET_STEPS_INVALID"
    TASK_BUDGET_RUNTIME_INVALID = "TASK_BUDGET_RUNTIME_INVALID"
    TASK_BUDGET_TOKENS_INVALID = "TASK_BUDGET_TOKENS_INVALID"
    TASK_ENV_SPEC_INVALID = "TASK_ENV_SPEC_INVALID"
    TASK_RESOURCE_KIND_INVALID = "TASK_RESOURCE_KIND_INVALID"
    TASK_RESOURCE_LOCATOR_MISSING = "TASK_RESOURCE_LOCATOR_MISSING"
    TASK_RESOURCE_MOUNT_INVALID = "TASK_RESOURCE_MOUNT_INVALID"
    TASK_RESOURCE_MISSING = "TASK_RESOURCE_MISSING"
    TASK_RESOURCE_NOT_WRITABLE = "TASK_RESOURCE_NOT_WRITABLE"
    TASK_RESOURCE_PARENT_NOT_WRITABLE = "TASK_RESOURCE_PARENT_NOT_WRITABLE"
    TASK_VALIDATION_EXCEPTION = "TASK_VALIDATION_EXCEPTION"
    ENV_REQUIRED_OPS_MISSING = "ENV_REQUIRED_OPS_MISSING"
    ENV_OPS_GROUP_MISSING = "ENV_OPS_GROUP_MISSING"
    ENV_HEALTH_CHECK_FAILED = "ENV_HEALTH_CHECK_FAILED"
    ENV_HEALTH_CHECK_EXCEPTION = "ENV_HEALTH_CHECK_EXCEPTION"

    @property
    def reason(self) -> StopReason:
        """The stop reason of a run with such an issue."""
        if self.startswith("TASK_"):
            return StopReason.TASK_VALIDATION_FAILED
        return StopReason.ENV_CAPABILITY_MISMATCH


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem that keeps a run from starting."""

    code: Code
    message: str


Preflight: TypeAlias = Callable[[], Awaitable[Sequence[Issue]]]


def stop_for_issues(issues: Sequence[Issue]) -> Stop:
    """The stop for a run with these issues; those of the task, if any, decide its reason."""
    reasons = {issue.code.reason for issue in issues}
    wrong_task = StopReason.TASK_VALIDATION_FAILED
    reason = wrong_task if wrong_task in reasons else StopReason.ENV_CAPABILITY_MISMATCH
    listed = "; ".join(f"{issue.code.value}: {issue.message}" for issue in issues)
    return stop_for(reason, detail=listed)


async def run_preflight(preflight: Preflight, stream: Stream) -> None:
    """Run the preflight and emit an event for each issue.

    Raises:
        Stopped: there are issues.
    """
    if issues := await preflight():
        for issue in issues:
            await stream.emit(PreflightIssue(issue.code.value, issue.message))
        raise Stopped(stop_for_issues(issues))


async def look(
    task: Task,
    environment: Environment,
    specs: Iterable[ToolSpec] = (),
    *,
    groups: Iterable[str] = (),
) -> list[Issue]:
    """All issues of a task in an environment; empty if the run can start. Raises nothing.

    ``specs`` are the task's tools; ``groups`` are the operations that the environment must have.
    """
    issues = list(_of_environment(environment, specs, groups))
    if "files" in environment.operations and not issues:
        issues += await _health(environment)
    healthy = not issues
    try:
        issues = [*_of_task(task), *issues]
        for resource in task.resources:
            issues += _of_resource(task, resource)
            if healthy and _is_inside(resource.path):
                issues += [issue async for issue in _there(task, resource, environment)]
    except Exception as error:
        # A task that was built in code can hold values of any type.
        message = f"the task cannot be checked: {error!r}"
        issues.append(Issue(Code.TASK_VALIDATION_EXCEPTION, message))
    return issues


def _of_task(task: Task) -> Iterable[Issue]:
    if task.id and not _ID.fullmatch(task.id):
        yield Issue(Code.TASK_ID_INVALID, f"{task.id!r} cannot be the id of a task")
    if not task.instruction.strip():
        yield Issue(Code.TASK_OBJECTIVE_INVALID, "the task has no instruction")
    numbers = (
        (Code.TASK_BUDGET_STEPS_INVALID, "max_steps", task.max_steps),
        (Code.TASK_BUDGET_RUNTIME_INVALID, "budget.time_s", task.budget.time_s),
        (Code.TASK_BUDGET_TOKENS_INVALID, "budget.tokens", task.budget.tokens),
    )
    for code, name, value in numbers:
        if value is not None and not value > 0:
            yield Issue(code, f"{name} is {value}; it must be more than 0")
    if task.env is not None and not _ENVIRONMENT.fullmatch(task.env):
        known = "host, docker:IMAGE or ssh:HOST"
        yield Issue(Code.TASK_ENV_SPEC_INVALID, f"env is {task.env!r}; write {known}")


def _of_resource(task: Task, resource: Resource) -> Iterable[Issue]:
    if resource.kind not in _KINDS:
        message = f"{resource.path}: kind is {resource.kind!r}; it can be {', '.join(_KINDS)}"
        yield Issue(Code.TASK_RESOURCE_KIND_INVALID, message)
    if not resource.path.strip():
        yield Issue(Code.TASK_RESOURCE_LOCATOR_MISSING, "a resource has no path")
    elif not _is_inside(resource.path):
        message = f"{resource.path} is not inside the workspace"
        yield Issue(Code.TASK_RESOURCE_MISSING, message)
    if resource.mount and not _is_inside(resource.mount):
        message = f"{resource.path}: mount is {resource.mount!r}, not a path inside the workspace"
        yield Issue(Code.TASK_RESOURCE_MOUNT_INVALID, message)


def _is_inside(path: str) -> bool:
    """Whether a path is lexically below the root; the worker guards where links lead."""
    plain = posixpath.normpath(path) if path.strip() else ".."
    return not plain.startswith(("/", "../")) and plain != ".." and "\0" not in path


async def _there(task: Task, resource: Resource, environment: Environment) -> AsyncIterator[Issue]:
    """Check that a resource matches the task, or can be created if it may be missing."""
    path = resource.path
    found = await environment.stat(path)
    if found is None or found.kind != _KINDS.get(resource.kind, found.kind):
        if resource.required:
            message = f"{resource.kind} {path} is not in {environment.root}"
            yield Issue(Code.TASK_RESOURCE_MISSING, message)
        elif resource.writable and found is None:
            parent = posixpath.dirname(posixpath.normpath(path)) or "."
            if not await _writable(environment, parent):
                message = f"{path}: nothing can be created in {parent}"
                yield Issue(Code.TASK_RESOURCE_PARENT_NOT_WRITABLE, message)
        return
    if resource.writable and not await _writable(environment, path):
        yield Issue(Code.TASK_RESOURCE_NOT_WRITABLE, f"{path} cannot be written")


async def _writable(environment: Environment, path: str) -> bool:
    """Whether a path is writable for a command in the environment, as it is for tools."""
    if "process" not in environment.operations:
        found = await environment.stat(path)
        return found is not None and bool(found.mode & 0o222)
    script = 'test -w "$1"'
    done = await environment.exec(["/bin/sh", "-c", script, "sh", path], limits=_LOOKING)
    return done.success


def _of_environment(
    environment: Environment, specs: Iterable[ToolSpec], groups: Iterable[str]
) -> Iterable[Issue]:
    have = environment.operations
    for group in sorted(set(groups) - have):
        there = ", ".join(sorted(have)) or "nothing"
        yield Issue(Code.ENV_OPS_GROUP_MISSING, f"the environment has no {group}; it has {there}")
    for spec in specs:
        if lacking := sorted(spec.requires - have):
            message = f"{spec.name} needs {', '.join(lacking)}"
            yield Issue(Code.ENV_REQUIRED_OPS_MISSING, message)


async def _health(environment: Environment) -> list[Issue]:
    """Check that the environment responds to the cheapest operation."""
    try:
        found = await environment.stat(".")
    except Exception as error:
        message = f"the environment does not answer: {error}"
        return [Issue(Code.ENV_HEALTH_CHECK_EXCEPTION, message)]
    if found is None or found.kind != "dir":
        message = f"the workspace {environment.root} does not exist"
        return [Issue(Code.ENV_HEALTH_CHECK_FAILED, message)]
    return []
