"""``agentcli sessions undo``, ``redo``, ``rewind``, ``fork`` and ``replay``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from agentcli.cli.confirm import agreed
from agentcli.cli.session_options import SessionId, Yes
from agentcli.session import forking, timetravel
from agentcli.session.store import find_session
from agentcli.session.timetravel import Preview, Travelled
from agentcli.text import counted, escape, one_line
from agentcli.wording import describe_call

Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Overwrite files that were changed since; copies of them are kept."
    ),
]
FilesOnly = Annotated[bool, typer.Option("--files-only", help="Keep the messages as they are.")]
MessagesOnly = Annotated[bool, typer.Option("--messages-only", help="Keep the files as they are.")]
Step = Annotated[
    int, typer.Argument(min=0, help="The step to go back to; 0 is the start.", metavar="STEP")
]


def undo(
    session_id: SessionId,
    step: Annotated[
        int | None,
        typer.Argument(
            min=1,
            help="The first step to undo; default: the start of the last task.",
            metavar="[STEP]",
        ),
    ] = None,
    yes: Yes = False,
    force: Force = False,
) -> int:
    """Undo the last task and all that followed, or the steps from STEP on."""
    if step is not None:
        return rewind(session_id, step - 1, yes=yes, force=force)
    session_id = find_session(session_id)
    if not _agreed(asyncio.run(timetravel.preview(session_id)), yes, force):
        return 1
    _done(session_id, asyncio.run(timetravel.undo(session_id, force=force)))
    return 0


def redo(session_id: SessionId, yes: Yes = False, force: Force = False) -> int:
    """Redo what the last undo or rewind took back."""
    session_id = find_session(session_id)
    if not _agreed(asyncio.run(timetravel.preview(session_id, redo=True)), yes, force):
        return 1
    _done(session_id, asyncio.run(timetravel.redo(session_id, force=force)))
    return 0


def rewind(
    session_id: SessionId,
    step: Step,
    yes: Yes = False,
    force: Force = False,
    files_only: FilesOnly = False,
    messages_only: MessagesOnly = False,
) -> int:
    """Go back to the end of a step, both messages and files."""
    if files_only and messages_only:
        raise typer.BadParameter("that leaves nothing to do", param_hint="'--files-only'")
    session_id = find_session(session_id)
    seen = asyncio.run(timetravel.preview(session_id, step))
    if not _agreed(seen, yes, force, files=not messages_only, messages=not files_only):
        return 1
    travelled = asyncio.run(
        timetravel.rewind(
            session_id, step, messages=not files_only, files=not messages_only, force=force
        )
    )
    _done(session_id, travelled)
    return 0


def fork(
    session_id: SessionId,
    step: Annotated[
        int | None,
        typer.Argument(
            min=0, help="The step to go on from; default: the last one.", metavar="[STEP]"
        ),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(
            help="Work in a copy of the workspace, created in this folder.", metavar="DIR"
        ),
    ] = None,
    yes: Yes = False,
    force: Force = False,
) -> int:
    """Open a second session that continues from a step of this one; prints its id."""
    session_id = find_session(session_id)
    if step is not None and workspace is None:
        seen = asyncio.run(timetravel.preview(session_id, step))
        if not _agreed(seen, yes, force, messages=False, to=sys.stderr):
            return 1
    new_id = asyncio.run(forking.fork(session_id, step, workspace=workspace, force=force))
    print(new_id)
    print(f"go on with: agentcli run --session {new_id} -p TEXT", file=sys.stderr)
    return 0


def replay(
    session_id: SessionId,
    from_: Annotated[
        int, typer.Option("--from", min=0, help="Start after this step.", metavar="STEP")
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="Let this model answer instead of the recording.", metavar="MODEL"),
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Where to create the copy; default: a new folder.", metavar="DIR"),
    ] = None,
) -> int:
    """Run a session again in a copy of its workspace as it then was.

    The recorded answers are played back, or another model answers. Exit code 1: a tool's result
    differed from the recorded one.
    """
    from agentcli.cli.replay import replayed  # imports everything that a run needs

    return asyncio.run(replayed(find_session(session_id), from_, model, workspace))


def _agreed(
    seen: Preview,
    yes: bool,
    force: bool,
    *,
    files: bool = True,
    messages: bool = True,
    to: TextIO | None = None,
) -> bool:
    """Show what would change, on stdout or ``to``, and ask for confirmation."""
    to = to or sys.stdout
    if messages:
        for word, some in (("drops", seen.dropped), ("brings back", seen.restored)):
            for message in some:
                said = one_line(escape(message.text), 70)
                said = said or ", ".join(describe_call(call, 60) for call in message.calls)
                if said and message.role.value != "tool":
                    print(f"{word} {message.role.value}: {said}", file=to)
    if files:
        to.write(escape(seen.diff))
        for conflict in seen.conflicts:
            what = "set aside" if force else "conflict"
            print(f"{what}: {escape(conflict.path)}: {conflict.why}", file=to)
        if seen.not_covered:
            shown = ", ".join(map(escape, seen.not_covered[:10]))
            more = len(seen.not_covered) - 10
            print(f"left as it is: {shown}{f' and {more} more' if more > 0 else ''}", file=to)
    count = counted(len(seen.paths) if files else 0, "file")
    to.flush()
    if files and seen.conflicts and not force:
        return True  # the operation itself then fails, and says why
    return agreed(f"Go to the end of step {seen.step} ({count})?", yes=yes)


def _done(session_id: str, travelled: Travelled) -> None:
    files = counted(len(travelled.paths), "file")
    print(f"session {session_id} stands at the end of step {travelled.step}; {files} changed")
    if travelled.quarantine is not None:
        print(f"what was overwritten is in {travelled.quarantine}")
