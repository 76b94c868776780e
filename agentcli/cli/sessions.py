"""``agentcli sessions``: what was done on this machine, read from the journals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentcli.agent.state import AgentState, fold
from agentcli.cli.render import PlainRenderer, Summary
from agentcli.errors import UsageError
from agentcli.session.journal import read_events
from agentcli.session.store import SessionInfo, journal_path, list_sessions
from agentcli.text import escape, one_line

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
    path = journal_path(_full_id(session_id))
    renderer = PlainRenderer(sys.stdout, sys.stdout)
    state = AgentState()
    for event in read_events(path):
        state = fold(state, event)
        renderer.event(event)
    spent = sum(record.duration_s for record in state.records)
    renderer.finish(Summary(state, 0, spent))


def _full_id(given: str) -> str:
    if journal_path(given).exists():
        return given
    ids = [session.id for session in list_sessions() if session.id.startswith(given)]
    if len(ids) == 1:
        return ids[0]
    what = f"{len(ids)} sessions begin with {given}" if ids else f"there is no session {given}"
    raise UsageError(what, hint="See: agentcli sessions list")


def _line(session: SessionInfo) -> str:
    when = session.updated.astimezone().strftime("%Y-%m-%d %H:%M")
    ended = session.outcome or str(session.condition)
    task = one_line(session.task, 60)
    columns = [session.id, when, f"{ended:<12}", session.model, session.workspace, task]
    return escape("  ".join(columns))
