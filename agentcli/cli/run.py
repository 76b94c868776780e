"""``agentcli run``: runs one task, or a folder of them, and returns the exit code."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config
from agentcli import task as tasks
from agentcli.agent.events import RunFinished, Status, StopReason
from agentcli.agent.kernel import Agent
from agentcli.agent.run import Run, RunResult
from agentcli.agent.state import AgentState
from agentcli.answer_schema import AnswerSchema
from agentcli.changes import Changes
from agentcli.cli import attempts
from agentcli.cli.agent_options import (
    LIMITS,
    AgentMode,
    BudgetTokensOption,
    DomainOption,
    EnvOption,
    MaxCostOption,
    ModelOption,
    ModeOption,
    NetworkOption,
    NoSandboxOption,
    OfflineOption,
    ProfileOption,
    WorkspaceOption,
    agent_flags,
    positive,
)
from agentcli.cli.asking import can_ask, on_terminal
from agentcli.cli.committing import commit_run
from agentcli.cli.errors import log_to_file, show_error, show_note
from agentcli.cli.help import App
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
    local_flags,
)
from agentcli.cli.open import open_renderer
from agentcli.cli.render import Output, Renderer, Summary
from agentcli.cli.signals import Interruption, interruptible
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ToolError, UsageError, WorkspaceError
from agentcli.images import read_image, task_images
from agentcli.messages import Image, Message, Role
from agentcli.session.store import find_session, interrupted, load_state
from agentcli.settings import Settings
from agentcli.slash_commands import command_folders, expanded, is_command
from agentcli.task import Task
from agentcli.trust import is_trusted
from agentcli.wiring import copies_of, open_agent

app = App()

MANY = "Attempts and batches"
"""The section of the help for options about several runs."""

PROMPT = "-p"
"""The source of a task that is given on the command line."""


class Executor(StrEnum):
    """Values of ``--executor``: this process, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


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


@app.command()
def run(
    task: Annotated[
        str | None,
        typer.Argument(
            help="A Markdown file with the task, or a folder of them; - reads stdin.",
            metavar="TASK.md",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("-p", "--prompt", help="The task as text.", metavar="TEXT")
    ] = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    output: Annotated[
        Output | None, typer.Option(help="The format of stdout; default: text.")
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after this many steps; default: 100.", rich_help_panel=LIMITS
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Stop after this many seconds; default: no limit.",
            metavar="SECONDS",
            callback=positive,
            rich_help_panel=LIMITS,
        ),
    ] = None,
    budget_tokens: BudgetTokensOption = None,
    max_cost: MaxCostOption = None,
    check: Annotated[
        list[str] | None,
        typer.Option(help="A command that must succeed at the end; repeatable.", metavar="CMD"),
    ] = None,
    mode: ModeOption = None,
    env: EnvOption = None,
    best_of: Annotated[
        int,
        typer.Option(
            min=1,
            help="Attempts, each on a copy; the first that passes the checks is kept.",
            metavar="N",
            rich_help_panel=MANY,
        ),
    ] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks of a folder to run at once; default: 1, with ray all CPUs.",
            metavar="N",
            rich_help_panel=MANY,
        ),
    ] = None,
    executor: Annotated[
        Executor,
        typer.Option(help="Where the tasks of a folder run.", rich_help_panel=MANY),
    ] = Executor.LOCAL,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Show the model an image; repeatable.", metavar="FILE"),
    ] = None,
    output_schema: Annotated[
        Path | None,
        typer.Option(help="Make the answer JSON that fits this schema.", metavar="FILE"),
    ] = None,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit the changes of a solved run to git.")
    ] = False,
    profile: ProfileOption = None,
    no_sandbox: NoSandboxOption = False,
    network: NetworkOption = None,
    domain: DomainOption = None,
    offline: OfflineOption = False,
    session: Annotated[
        str | None,
        typer.Option(help="Resume this session, named by its id or a prefix of it.", metavar="ID"),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    context: ContextOption = None,
    threads: ThreadsOption = None,
) -> int:
    """Work on a task until its checks pass.

    Progress goes to stderr, the answer to stdout. Exit codes: 0 solved, 1 not solved or a limit
    was reached, 2 wrong usage, 3 the provider failed, 4 no sandbox, 5 internal error or output or
    journal that cannot be written, 130 interrupted.
    """
    if any(not command.strip() for command in check or ()):
        raise typer.BadParameter("a check cannot be empty", param_hint="'--check'")
    session = find_session(session) if session is not None else None
    before = load_state(session) if session else None
    folder = _workspace(workspace, before, writes=mode is not AgentMode.PLAN)
    flags = {
        **agent_flags(
            model=model,
            mode=mode,
            env=env,
            no_sandbox=no_sandbox,
            network=network,
            domain=domain,
            offline=offline,
            budget_tokens=budget_tokens,
            max_cost=max_cost,
        ),
        "output": output.value if output else None,
        "max_steps": max_steps,
        "timeout_s": timeout,
        **local_flags(device, dtype, quantize, context, threads),
    }
    settings = config.load(folder, flags=flags, trusted=is_trusted(folder), profile=profile)
    if task is not None and Path(task).is_dir():
        if prompt is not None or session or output_schema or commit or image:
            others = "-p, --session, --output-schema, --commit, --image"
            raise UsageError(f"a folder of tasks takes no {others}")
        from agentcli.cli.batch_view import run_folder

        chosen = mode or settings.mode or AgentMode.AUTO
        return run_folder(
            Path(task),
            folder,
            settings,
            flags=flags,
            mode=chosen,
            checks=check or (),
            jobs=jobs,
            attempts=best_of,
            executor=executor,
        )
    if jobs is not None or executor is not Executor.LOCAL:
        raise UsageError("--jobs and --executor are for a folder of tasks")
    given = tasks.overridden(_task(task, prompt, before, folder), flags, check or ())
    if before and not given.model:
        given = replace(given, model=before.model)
    schema = AnswerSchema.read(output_schema) if output_schema else None
    if schema and given.instruction:
        given = replace(given, instruction=f"{given.instruction}\n\n{schema.instruction}")
    how = mode or settings.mode or (before.mode if before else "") or AgentMode.AUTO
    job = Job(
        given,
        settings,
        folder,
        session,
        how,
        Output(settings.output),
        schema,
        best_of,
        commit,
        tuple(read_image(path, "--image: ") for path in image or ()),
    )
    if best_of > 1:
        attempts.check_attempts(given, settings, how)
        if session:
            raise UsageError(
                "--best-of starts a new session for each attempt", hint="Leave out --session"
            )
    if commit and (best_of > 1 or how == AgentMode.PLAN or (given.env or settings.env) != "host"):
        raise UsageError("--commit is for one attempt that changes files of this machine")
    return asyncio.run(_run(job))


def _is_answer(message: Message) -> bool:
    return message.role is Role.ASSISTANT and not message.calls


def _task(path: str | None, prompt: str | None, before: AgentState | None, workspace: Path) -> Task:
    if prompt is not None and is_command(prompt):
        prompt = expanded(prompt, command_folders(workspace))
    if path == "-" and prompt is not None:
        given = tasks.read_stdin_text()
        return _of_prompt(f"{prompt}\n\n<stdin>\n{given.rstrip()}\n</stdin>" if given else prompt)
    if path is not None and prompt is not None:
        raise UsageError(
            "a task file and -p were both given",
            hint="Give one of them, or - to add what comes on stdin",
        )
    if prompt is not None:
        return _of_prompt(prompt)
    if path == "-":
        return tasks.read_stdin()
    if path is not None:
        return tasks.read(Path(path))
    if before is None:
        raise UsageError("no task was given", hint="Name a TASK.md, or use -p TEXT, or - for stdin")
    answered = bool(before.undone) and _is_answer(before.history[-1])
    if not before.task or answered or before.status in (Status.SOLVED, Status.UNSOLVED):
        what = "has ended" if before.task else "was never given a task"
        raise UsageError(f"session {before.session_id} {what}", hint="Give it a task to go on")
    return Task("")


def _of_prompt(text: str) -> Task:
    """A task from a prompt; unlike a file it has no front matter, even if it looks so."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the text of -p is not UTF-8") from error
    if not text.strip():
        raise UsageError("the text of -p is empty", hint="Write what is to be done")
    return Task(text.strip(), PROMPT)


def _workspace(given: Path | None, before: AgentState | None, *, writes: bool) -> Path:
    folder = given or Path(before.workspace if before else ".")
    try:
        folder = folder.resolve(strict=True)
        if not folder.is_dir():
            raise WorkspaceError(f"the workspace {folder} is not a folder")
        if writes:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        there = folder.is_dir()
        doing = "written" if there else "used"
        plan = ", or use --mode plan" if writes and there else ""
        raise WorkspaceError(
            f"the workspace {folder} cannot be {doing}: {error.strerror}",
            hint=f"Name another one with --workspace{plan}",
        ) from error
    return folder


async def _run(job: Job) -> int:
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
        interruption.cancel = work.cancel
        result = await _show(work, renderer, job.schema)
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
