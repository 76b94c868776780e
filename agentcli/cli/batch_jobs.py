"""Runs the tasks of a batch in this process; ``batch_ray`` runs them on a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentcli import task as tasks
from agentcli.agent.events import Event, Status
from agentcli.agent.run import RunResult
from agentcli.agent.state import AgentState
from agentcli.cli.attempts import best_of, check_attempts
from agentcli.cli.batch import Batch, begin, finish
from agentcli.cli.render import Summary, result_object
from agentcli.environments.host import HostEnvironment
from agentcli.errors import AgentCLIError
from agentcli.session import store
from agentcli.settings import Settings
from agentcli.task import Task
from agentcli.wiring import copies_of, open_agent

OnEvent = Callable[[str, Event], None]


@dataclass(frozen=True)
class Job:
    """One task of a batch, in a form that can be sent to another machine."""

    name: str
    file: str
    folder: str
    """The task's copy of the workspace."""
    settings: Mapping[str, Any]
    flags: Mapping[str, Any]
    """Command line flags, which override what the task says."""
    mode: str
    session: str | None = None
    checks: Sequence[str] = ()
    attempts: int = 1

    @property
    def task(self) -> Task:
        """The task read from its file, with the flags applied.

        Raises:
            TaskError: the file is not a valid task.
        """
        return tasks.overridden(tasks.read(Path(self.file)), self.flags, self.checks)


async def run_job(
    job: Job,
    on_begin: Callable[[str], None] = lambda session: None,
    on_event: OnEvent = lambda name, event: None,
) -> dict[str, Any]:
    """Run one task to its end; returns its result as ``--output json`` prints it.

    Raises:
        AgentCLIError: the run cannot begin.
    """
    started = time.monotonic()
    task = job.task
    settings = Settings.model_validate(job.settings, strict=False)
    before = store.load_state(job.session) if job.session else None
    if before is not None and before.finished and before.status is not Status.CANCELLED:
        return result_object(Summary(before, 0, 0.0))
    if job.attempts == 1:
        result = await _attempt(job, task, settings, before, None, on_begin, on_event)
        return result_object(Summary(result.state, result.exit_code, time.monotonic() - started))

    def on_copy(copy: HostEnvironment) -> Awaitable[RunResult]:
        return _attempt(job, task, settings, None, copy, on_begin, on_event)

    copies = copies_of(settings, Path(job.folder))
    result, made = await best_of(job.attempts, copies, on_copy, lambda text: None)
    found = result_object(Summary(result.state, result.exit_code, time.monotonic() - started))
    return {**found, "attempts": made}


async def _attempt(
    job: Job,
    task: Task,
    settings: Settings,
    before: AgentState | None,
    copy: HostEnvironment | None,
    on_begin: Callable[[str], None],
    on_event: OnEvent,
) -> RunResult:
    goes_on = bool(before and before.task)
    async with open_agent(
        settings,
        task=Task("") if goes_on else task,
        workspace=Path(job.folder),
        model=task.model or settings.model,
        mode=job.mode,
        session_id=job.session,
        copy=copy,
    ) as agent:
        on_begin(agent.session.session_id)
        run = agent.start(
            "" if goes_on else task.instruction,
            checks=() if goes_on else task.checks,
        )
        try:
            async for event in run:
                on_event(job.name, event)
        except BaseException:
            run.cancel()
            raise
        finally:
            result = await run.result()
    return result


def failed(error: AgentCLIError) -> dict[str, Any]:
    """The result of a task that could not be run."""
    kind = type(error).__name__
    state = AgentState(status=Status.FAILED, detail=error.line(), error=kind)
    return result_object(Summary(state, error.exit_code, 0.0))


@dataclass(frozen=True)
class BatchOptions:
    """The options that all tasks of a batch share."""

    settings: Settings
    flags: Mapping[str, Any]
    mode: str
    checks: Sequence[str]
    attempts: int = 1

    def check(self, batch: Batch) -> None:
        """Raise UsageError if several attempts are wanted and a task does not allow them."""
        for path in batch.tasks.values() if self.attempts > 1 else ():
            task = tasks.overridden(tasks.read(path), self.given_flags, self.checks)
            check_attempts(task, self.settings, self.mode)

    @property
    def given_flags(self) -> dict[str, Any]:
        """The flags that were set on the command line."""
        return {key: value for key, value in self.flags.items() if value is not None}


def job_of(batch: Batch, name: str, options: BatchOptions) -> Job:
    """The job for one task; creates its copy of the workspace."""
    return Job(
        name,
        str(batch.tasks[name].resolve()),
        str(batch.copy_of(name)),
        options.settings.model_dump(mode="json"),
        options.given_flags,
        options.mode,
        batch.sessions.get(name),
        tuple(options.checks),
        options.attempts,
    )


async def run_local(
    batch: Batch,
    options: BatchOptions,
    jobs: int,
    on_event: OnEvent,
    on_end: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run all open tasks of a batch in this process, ``jobs`` at a time."""
    slots = asyncio.Semaphore(jobs)

    async def one(name: str) -> None:
        async with slots:
            result = await _result(name)
            finish(batch, name, result)
            if name in batch.ended:
                on_end(name, batch.ended[name])

    def began(name: str, session: str) -> None:
        if options.attempts == 1:  # copies of attempts do not survive a crash: nothing to resume
            begin(batch, name, session)

    async def _result(name: str) -> dict[str, Any]:
        try:
            job = await asyncio.to_thread(job_of, batch, name, options)
            return await run_job(job, lambda session: began(name, session), on_event)
        except AgentCLIError as error:
            return failed(error)

    async with asyncio.TaskGroup() as group:
        for name in batch.open:
            group.create_task(one(name))
