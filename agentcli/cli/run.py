"""``agentcli run``: runs one task, or a folder of them, and returns the exit code."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config
from agentcli import task as tasks
from agentcli.agent.events import Status
from agentcli.agent.state import AgentState
from agentcli.answer_schema import AnswerSchema
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
from agentcli.cli.errors import show_note
from agentcli.cli.help import App
from agentcli.cli.job import PROMPT, Job, work_on
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
    local_flags,
)
from agentcli.cli.render import Output
from agentcli.cli.workspace import workspace_folder
from agentcli.errors import UsageError
from agentcli.images import read_image
from agentcli.messages import Message, Role
from agentcli.session.store import find_session, last_session, load_state
from agentcli.slash_commands import command_folders, expanded, is_command
from agentcli.task import Task

app = App()

MANY = "Attempts and batches"
"""The section of the help for options about several runs."""


class Executor(StrEnum):
    """Values of ``--executor``: this process, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


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
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Resume this folder's last session.")
    ] = False,
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
    if session is not None and continue_:
        raise UsageError("--session and --continue were both given", hint="Give one of them")
    if continue_:
        session = last_session(workspace_folder(workspace or Path()))
    session = find_session(session) if session is not None else None
    before = load_state(session) if session else None
    folder = workspace_folder(
        workspace or Path(before.workspace if before else "."),
        writes=mode is not AgentMode.PLAN,
    )
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
    settings = config.load(folder, flags=flags, profile=profile)
    if task is not None and os.path.isdir(task):  # False for a text that is too long for a path
        if prompt is not None or session or output_schema or commit or image:
            others = "-p, --session, --continue, --output-schema, --commit, --image"
            raise UsageError(f"a folder of tasks takes no {others}")
        from agentcli.cli.batch_view import run_folder

        return run_folder(
            Path(task),
            folder,
            settings,
            flags=flags,
            mode=mode or settings.mode or AgentMode.AUTO,
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
    chosen_mode = mode or settings.mode or (before.mode if before else "") or AgentMode.AUTO
    job = Job(
        given,
        settings,
        folder,
        session,
        chosen_mode,
        Output(settings.output),
        schema,
        best_of,
        commit,
        tuple(read_image(path, "--image: ") for path in image or ()),
    )
    _check_options(job)
    return asyncio.run(work_on(job))


def _check_options(job: Job) -> None:
    """Raise UsageError if some of the options exclude each other."""
    if job.attempts > 1:
        attempts.check_attempts(job.task, job.settings, job.mode)
        if job.session:
            raise UsageError(
                "--best-of starts a new session for each attempt",
                hint="Leave out --session and --continue",
            )
    changes_here = job.mode != AgentMode.PLAN and (job.task.env or job.settings.env) == "host"
    if job.commit and (job.attempts > 1 or not changes_here):
        raise UsageError("--commit is for one attempt that changes files of this machine")


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
        if tasks.is_piped():
            show_note(
                "what comes on stdin is not read; to add it to the task: agentcli run - -p ..."
            )
        return _of_prompt(prompt)
    if path == "-":
        return tasks.read_stdin()
    if path is not None:
        return tasks.read(Path(path))
    if before is None:
        raise UsageError("no task was given", hint="Name a TASK.md, or use -p TEXT, or - for stdin")
    answered = bool(before.undone and before.history) and _is_answer(before.history[-1])
    if not before.task or answered or before.status in (Status.SOLVED, Status.UNSOLVED):
        what = "has ended" if before.task else "was never given a task"
        raise UsageError(f"session {before.session_id} {what}", hint="Give it a task to go on")
    return Task("")


def _is_answer(message: Message) -> bool:
    return message.role is Role.ASSISTANT and not message.calls


def _of_prompt(text: str) -> Task:
    """A task from a prompt; unlike a file, it has no front matter, even if it looks like it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the text of -p is not UTF-8") from error
    if not text.strip():
        raise UsageError("the text of -p is empty", hint="Write what is to be done")
    return Task(text.strip(), PROMPT)
