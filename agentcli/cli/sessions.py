"""``agentcli sessions``: what was done on this machine, read from the journals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentcli.agent.events import RunFinished, TaskGiven
from agentcli.agent.state import AgentState, fold
from agentcli.cli.render import PlainRenderer, Summary, steps_of
from agentcli.session.journal import read_events
from agentcli.session.store import (
    Condition,
    SessionInfo,
    find_session,
    journal_path,
    list_sessions,
)
from agentcli.text import counted, escape, one_line
from agentcli.wording import describe_call, usage_line

app = typer.Typer(
    help="List the sessions on this machine and show one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    workspace: Annotated[
        Path | None, typer.Option(help="Only sessions of this workspace.", show_default=False)
    ] = None,
) -> None:
    """List sessions, newest first: id, time, how it ended, model, workspace, task."""
    found = list_sessions(workspace.resolve() if workspace else None)
    for session in found:
        print(_line(session))
    if not found:
        print("no sessions yet", file=sys.stderr)


@app.command()
def show(
    session_id: Annotated[str, typer.Argument(help="The id, or its beginning.")],
) -> None:
    """Show what happened in a session, and what it came to."""
    full_id = find_session(session_id)
    renderer = PlainRenderer(sys.stdout, sys.stdout)
    state = AgentState()
    for event in read_events(journal_path(full_id)):
        state = fold(state, event)
        renderer.event(event)
        match event:
            case TaskGiven(text) if text:
                print(escape(f"task: {text}"))
            case RunFinished():
                renderer.finish(Summary(state, event.exit_code, _spent(state)))
    if not state.finished:
        _show_open(full_id, state)


@app.command()
def compact(
    session_id: Annotated[str, typer.Argument(help="The id, or its beginning.")],
    preview: Annotated[
        bool, typer.Option("--preview", help="Only say what would be left out.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last compaction.")] = False,
    keep: Annotated[
        list[int] | None,
        typer.Option(min=0, help="The number of a message that stays as it is.", metavar="N"),
    ] = None,
) -> None:
    """Show the model less of a session from here on; the session itself stays whole."""
    from agentcli.cli.compact import compact as work  # starts a sandbox: listing need not wait

    work(find_session(session_id), preview=preview, undo=undo, keep=keep or [])


def _spent(state: AgentState) -> float:
    """Seconds of this run's steps."""
    return sum(each.duration_s for each in state.records if each.step > state.before.steps)


def _show_open(session_id: str, state: AgentState) -> None:
    """A run without its end: whether it goes on, and what it was about to do."""
    conditions = {each.id: each.condition for each in list_sessions()}
    condition = conditions.get(session_id, Condition.INTERRUPTED)
    for call in state.unresolved:
        began = "began, and has no result" if call.id in state.started else "was not begun"
        print(f"> {describe_call(call)}\n  {began}")
    steps = counted(steps_of(state), "step")
    print(f"{condition} · {steps} · {usage_line(state.used.usage)}")
    if condition is Condition.INTERRUPTED:
        print(f"go on with: agentcli run --session {session_id}")


def _line(session: SessionInfo) -> str:
    when = session.updated.astimezone().strftime("%Y-%m-%d %H:%M")
    ended = session.outcome or str(session.condition)
    task = one_line(session.task, 60)
    columns = [session.id, when, f"{ended:<12}", session.model, session.workspace, task]
    return escape("  ".join(columns))
