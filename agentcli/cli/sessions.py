"""``agentcli sessions``: commands for recorded sessions."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcli.agent.events import RunFinished, TaskGiven
from agentcli.agent.folding import fold
from agentcli.agent.state import AgentState
from agentcli.cli.compact import compact
from agentcli.cli.confirm import agreed
from agentcli.cli.help import App
from agentcli.cli.render import PlainRenderer, Summary, steps_of
from agentcli.cli.session_options import SessionId, Yes
from agentcli.cli.table import table
from agentcli.cli.travel import fork, redo, replay, rewind, undo
from agentcli.errors import UsageError
from agentcli.session.deletion import delete_session
from agentcli.session.export import Format, exported
from agentcli.session.finding import Hit, find_text
from agentcli.session.journal import read_events
from agentcli.session.store import (
    Condition,
    SessionInfo,
    find_session,
    journal_path,
    list_sessions,
    load_state,
    unreadable_sessions,
)
from agentcli.session.trace import close_interrupted
from agentcli.text import counted, encodable, escape, one_line
from agentcli.wording import describe_call, usage_line

app = App("List, search, show, undo, fork, replay and export sessions.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@app.command("list")
def list_(
    workspace: Annotated[
        Path | None, typer.Option(help="Only sessions of this folder.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List sessions, newest first: id, time, how it ended, model, workspace, task."""
    found = list_sessions(workspace.resolve() if workspace else None)
    close_interrupted(found)
    if as_json:
        for session in found:
            _json(_record(session))
        _tell_of_unreadable()
        return
    titles = ("SESSION", "CHANGED", "ENDED", "MODEL", "WORKSPACE", "TASK")
    for line in table(titles, [_row(session) for session in found], sys.stdout.isatty()):
        print(line)
    if not found:
        print("no sessions yet", file=sys.stderr)
    _tell_of_unreadable()


@app.command()
def show(session_id: SessionId) -> None:
    """Show what happened in a session and how it ended."""
    full_id = find_session(session_id)
    load_state(full_id)  # raises if the journal is damaged
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
def export(
    session_id: SessionId,
    form: Annotated[Format, typer.Option("--format", help="The format.")] = Format.MARKDOWN,
    to: Annotated[
        Path | None, typer.Option("--to", help="A new file; default: stdout.", metavar="FILE")
    ] = None,
) -> None:
    """Write a session as Markdown or JSON, or its raw journal."""
    text = exported(find_session(session_id), form)
    if to is None:
        sys.stdout.write(escape(text) if sys.stdout.isatty() else encodable(text))
        return
    try:
        with open(to, "x", encoding="utf-8") as file:
            file.write(encodable(text))
    except OSError as error:
        raise UsageError(f"cannot write {to}: {error.strerror}") from error
    print(f"wrote {to}", file=sys.stderr)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="The text to find; case is ignored.")],
    workspace: Annotated[
        Path | None, typer.Option(help="Only sessions of this folder.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find sessions by their text: tasks, answers, calls and results."""
    if not text.strip():
        raise UsageError("there is nothing to search for")
    hits = find_text(text, workspace.resolve() if workspace else None)
    if as_json:
        for hit in hits:
            _json(asdict(hit))
        return
    titles = ("SESSION", "STEP", "WHO", "WHAT")
    for line in table(titles, [_hit(hit) for hit in hits], sys.stdout.isatty()):
        print(line)
    if not hits:
        print("nothing was found", file=sys.stderr)


@app.command()
def delete(
    session_ids: Annotated[
        list[str], typer.Argument(help="The sessions' ids or prefixes of them.", metavar="ID")
    ],
    yes: Yes = False,
) -> int:
    """Delete sessions and their checkpoints; the workspace is not touched."""
    found = list(dict.fromkeys(map(find_session, session_ids)))
    for each in found:
        print(each)
    if not agreed(f"Delete {counted(len(found), 'session')} for good?", yes=yes):
        return 1
    for each in found:
        delete_session(each)
    return 0


for command in (compact, undo, redo, rewind, fork, replay):
    app.command()(command)


def _tell_of_unreadable() -> None:
    for name, why in unreadable_sessions().items():
        print(escape(f"session {name} cannot be read: {why}"), file=sys.stderr)


def _spent(state: AgentState) -> float:
    """The duration of this run's steps in seconds."""
    return sum(each.duration_s for each in state.records if each.step > state.before.steps)


def _show_open(session_id: str, state: AgentState) -> None:
    """Print the state of a session whose last run has no end, and its pending calls."""
    conditions = {each.id: each.condition for each in list_sessions()}
    condition = conditions.get(session_id, Condition.INTERRUPTED)
    for call in state.unresolved:
        began = "began, and has no result" if call.id in state.started else "was not begun"
        print(f"> {describe_call(call)}\n  {began}")
    steps = counted(steps_of(state), "step")
    print(f"{condition} · {steps} · {usage_line(state.used.usage)}")
    if condition is Condition.INTERRUPTED:
        print(f"go on with: agentcli run --session {session_id}")


def _row(session: SessionInfo) -> list[str]:
    when = session.updated.astimezone().strftime("%Y-%m-%d %H:%M")
    task = one_line(session.task, 60)
    return [
        escape(e) for e in (session.id, when, session.ended, session.model, session.workspace, task)
    ]


def _record(session: SessionInfo) -> dict[str, Any]:
    record = asdict(session)
    record["path"], record["updated"] = str(session.path), session.updated.isoformat()
    return record


def _hit(hit: Hit) -> list[str]:
    return [escape(each) for each in (hit.session, str(hit.step), hit.who, hit.text)]


def _json(record: dict[str, Any]) -> None:
    print(json.dumps(record))
