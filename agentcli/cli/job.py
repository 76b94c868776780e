"""Runs one task of ``agentcli run``, with all options."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path

from agentcli.agent.events import RunFinished, Status, StopReason
from agentcli.agent.kernel import Agent
from agentcli.agent.run import Run, RunResult
from agentcli.answer_schema import AnswerSchema
from agentcli.changes import Changes
from agentcli.cli import attempts
from agentcli.cli.asking import can_ask, on_terminal
from agentcli.cli.committing import commit_run
from agentcli.cli.errors import log_to_file, show_error, show_note
from agentcli.cli.open import open_renderer
from agentcli.cli.render import Output, Renderer, Summary
from agentcli.cli.signals import Interruption, interruptible
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ToolError, UsageError
from agentcli.images import task_images
from agentcli.messages import Image
from agentcli.session.store import interrupted
from agentcli.settings import Settings
from agentcli.slash_commands import is_command
from agentcli.task import Task
from agentcli.wiring import copies_of, open_agent

PROMPT = "-p"
"""The source of a task that was given on the command line."""


@dataclass(frozen=True)
class Job:
    """The command line, the task and the settings combined."""

    task: Task
    settings: Settings
    workspace: Path
    session: str | None
    mode: str
    output: Output
    schema: AnswerSchema | None = None
    attempts: int = 1
    commit: bool = False
    images: tuple[Image, ...] = ()


async def work_on(job: Job) -> int:
    """Run the task, and show its events and its result; returns the exit code.

    Raises:
        AgentCLIError: the run cannot begin.
    """
    log_to_file()
    for notice in job.settings.notices:
        show_note(notice)
    _tell_of_interrupted(job)
    task = asyncio.current_task()
    assert task is not None
    with interruptible(task.cancel) as interruption:
        try:
            return await _work(job, interruption)
        except asyncio.CancelledError:
            if interruption.exit_code is None:
                raise
            show_error("interrupted before the run began")
            return interruption.exit_code


async def _work(job: Job, interruption: Interruption) -> int:
    started = time.monotonic()
    renderer = open_renderer(job.output)
    try:
        if job.attempts > 1:
            result = await _best(job, renderer, interruption)
        else:
            result = await _attempt(job, renderer, interruption)
    finally:
        renderer.close()
    code = result.exit_code
    if result.state.stop is StopReason.CANCELLED and interruption.exit_code is not None:
        code = interruption.exit_code
    duration_s = time.monotonic() - started
    state = result.state
    if job.schema:
        state = replace(state, answer=job.schema.canonical(state.answer))
    renderer.finish(Summary(state, code, duration_s))
    if result.state.status in (Status.FAILED, Status.INVALID):
        show_error(result.state.detail)
    return code


async def _best(job: Job, renderer: Renderer, interruption: Interruption) -> RunResult:
    def attempt(copy: HostEnvironment) -> Awaitable[RunResult]:
        return _attempt(job, renderer, interruption, copy)

    copies = copies_of(job.settings, job.workspace)
    return (await attempts.best_of(job.attempts, copies, attempt, show_note))[0]


async def _attempt(
    job: Job,
    renderer: Renderer,
    interruption: Interruption,
    copy: HostEnvironment | None = None,
) -> RunResult:
    """One run, in the workspace or on a copy of it."""
    changes = Changes(job.workspace, os.environ) if job.commit else None
    before = changes.uncommitted() if changes else set()
    async with open_agent(
        job.settings,
        task=job.task,
        workspace=job.workspace,
        model=job.task.model or job.settings.model,
        mode=job.mode,
        session_id=job.session,
        critics=[job.schema] if job.schema else [],
        ask=on_terminal(renderer.paused) if can_ask() else None,
        copy=copy,
    ) as agent:
        for notice in agent.notices:
            show_note(notice)
        agent.notices.clear()
        images, notes = task_images(job.task, job.workspace)
        for note in notes:
            show_note(note)
        work = agent.start(
            await _instruction(job.task, agent),
            checks=job.task.checks,
            images=(*images, *job.images),
        )
        before_it, interruption.cancel = interruption.cancel, work.cancel
        try:
            result = await _show(work, renderer, job.schema)
        finally:
            interruption.cancel = before_it  # between two attempts, there is no run to cancel
        if changes is None or result.state.status is not Status.SOLVED:
            return result
        try:
            await commit_run(agent, changes, before)
        except UsageError as error:
            show_error(error.line())
            return replace(result, state=agent.state, exit_code=1)
        return replace(result, state=agent.state)


async def _instruction(task: Task, agent: Agent) -> str:
    """The task's text; a ``/server:prompt`` given by ``-p`` is expanded by its MCP server."""
    servers = agent.context.servers
    if servers is None or task.source != PROMPT or not is_command(task.instruction):
        return task.instruction
    try:
        return await servers.expanded(task.instruction)
    except ToolError as error:
        raise UsageError(error.message) from error


async def _show(work: Run, renderer: Renderer, schema: AnswerSchema | None) -> RunResult:
    """Pass every event to the renderer; if it fails, the run is cancelled properly."""
    try:
        async for event in work:
            if schema and isinstance(event, RunFinished):
                event = replace(event, answer=schema.canonical(event.answer))
            renderer.event(event)
    except BaseException:
        work.cancel()
        await work.result()
        raise
    return await work.result()


def _tell_of_interrupted(job: Job) -> None:
    found = [session for session in interrupted(job.workspace) if session.id != job.session]
    if found:
        more = f" ({len(found)} in all)" if len(found) > 1 else ""
        show_note(
            f"session {found[0].id} of this workspace was interrupted{more}; "
            f"go on with it: agentcli run --session {found[0].id}"
        )
