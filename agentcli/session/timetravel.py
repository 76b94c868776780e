"""Undo, redo and rewind of a session: its messages together with the files of its workspace.

A session is given by its id, or as its live ``Agent`` between two runs. The journal stays
append-only: going back is an event like any other, and can be redone until something new is done.
The local model's cache follows automatically, by the longest common prefix.

Files changed by someone else in the meantime are never silently overwritten: such paths are refused
by name, or with ``force`` moved to a quarantine folder first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from agentcli.agent.events import Event, Rewound, WorkspaceChanged
from agentcli.agent.state import AgentState
from agentcli.environments.blobs import Blobs
from agentcli.environments.recorded import Recorded
from agentcli.environments.snapshots import folder_of
from agentcli.errors import ConflictError, UsageError
from agentcli.folders import data_folder
from agentcli.messages import Message
from agentcli.session.journal import Journal
from agentcli.session.moves import Move, carry_out, diff_of, redo_moves, set_aside, undo_moves
from agentcli.session.store import find_session, journal_path, load_state
from agentcli.text import counted

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent

Session: TypeAlias = "Agent | str"


@dataclass(frozen=True, slots=True)
class Point:
    """A point that a session can go back to: the end of a step, or with ``turn``, before a task.

    ``text`` is that task, or what the model said or called; ``files`` were changed in the step.
    """

    step: int
    turn: bool
    text: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that was changed by someone else."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a move would do. Paths in ``not_covered`` stay as they are: ignored, or not kept."""

    step: int
    dropped: tuple[Message, ...]
    restored: tuple[Message, ...]
    diff: str
    paths: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    not_covered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Travelled:
    """What was done. ``quarantine`` holds the overwritten changes of others, if any."""

    step: int
    paths: tuple[str, ...]
    quarantine: Path | None = None


def points(session: Session) -> list[Point]:
    """The points that a session can go back to, oldest first.

    Raises:
        UsageError: there is no such session.
    """
    state = state_of(session)
    marks = list(state.marks)
    found: list[Point] = []
    known = 0
    for mark, following in zip(marks, [*marks, state][1:], strict=True):
        text, files = following.task, _paths(mark.changes.since(known))
        if not mark.turn:
            decision = mark.step_decision
            text = "" if decision is None else decision.text.strip()
            if decision is not None and not text:
                text = ", ".join(call.name for call in decision.calls)
        found.append(Point(mark.step, mark.turn, text, () if mark.turn else files))
        known = len(mark.changes)
    return found


async def preview(session: Session, step: int | None = None, *, redo: bool = False) -> Preview:
    """What ``rewind`` to ``step`` would do, or without a step ``undo``, or ``redo``.

    Raises:
        UsageError: there is no such session or step, or nothing to undo or redo.
    """
    async with opened_place(session, only_look=True) as place:
        return await asyncio.to_thread(_preview, place, step, redo)


async def changed(session: Session) -> tuple[str, int]:
    """What tools have changed since the session started: a unified diff, and how many files.

    Raises:
        UsageError: there is no such session.
    """

    def look(place: Place) -> tuple[str, int]:
        state, blobs = place.state, place.blobs
        back = undo_moves(state.workspace, state.changes.since(0), blobs)
        moves = [Move(move.path, move.target, move.now) for move in back if move.possible]
        return diff_of(moves, blobs), sum(move.of_file for move in moves)

    async with opened_place(session, only_look=True) as place:
        return await asyncio.to_thread(look, place)


def changed_paths(session: Session) -> set[str]:
    """The paths that tools have changed since the session started."""
    return set(_paths(state_of(session).changes.since(0)))


async def undo(
    session: Session, *, messages: bool = True, files: bool = True, force: bool = False
) -> Travelled:
    """Undo the last task and everything that followed from it; see ``rewind``."""
    return await _travel(session, None, messages=messages, files=files, force=force)


async def rewind(
    session: Session,
    step: int,
    *,
    messages: bool = True,
    files: bool = True,
    force: bool = False,
) -> Travelled:
    """Go back to the end of a step; 0 is the start of the session.

    Raises:
        UsageError: there is no such session or step, or a run is in progress.
        ConflictError: files were changed by someone else since; nothing was done.
        SnapshotError: a file cannot be restored; nothing was done.
        JournalError: it cannot be recorded, or another process has the session open.
    """
    return await _travel(session, step, messages=messages, files=files, force=force)


async def redo(session: Session, *, force: bool = False) -> Travelled:
    """Revert the last undo or rewind, if nothing new was done since; see ``rewind``."""
    return await _travel(session, None, redo=True, force=force)


@dataclass
class Place:
    """A session that is open for going back or forth."""

    state: AgentState
    blobs: Blobs
    folder: Path
    emit: Callable[[Event], Awaitable[None]]
    settle: Callable[[], Awaitable[list[WorkspaceChanged]]]


def state_of(session: Session) -> AgentState:
    """The current state of a session; raises as ``load_state``."""
    return load_state(find_session(session)) if isinstance(session, str) else session.state


@contextlib.asynccontextmanager
async def opened_place(session: Session, *, only_look: bool = False) -> AsyncIterator[Place]:
    """Open a session, closed or live, so that no other process can move it in the meantime.

    Raises:
        UsageError: there is no such session, or a run is in progress.
        JournalError: another process has it open.
    """

    async def nothing() -> list[WorkspaceChanged]:
        return []

    if not isinstance(session, str):
        if not only_look:
            session.check_idle("go back or forth")
        state, environment = session.state, session.context.environment
        folder = journal_path(session.session.session_id).parent
        if isinstance(environment, Recorded):

            async def settle() -> list[WorkspaceChanged]:
                found = await environment.drain(outside=True)
                return [
                    WorkspaceChanged(state.step, each.before, each.after, True) for each in found
                ]

            yield Place(state, environment.snapshots.blobs, folder, session.stream.emit, settle)
            return
        with contextlib.closing(Blobs(folder_of(data_folder(), state.workspace))) as blobs:
            yield Place(state, blobs, folder, session.stream.emit, nothing)
        return
    session = find_session(session)
    path = journal_path(session)
    # Lock before reading, so as not to miss what another process does in between.
    journal = None if only_look else Journal(path)

    async def emit(event: Event) -> None:
        if journal is not None:
            await journal.append(event, sync=True)

    try:
        state = load_state(session)
        with contextlib.closing(Blobs(folder_of(data_folder(), state.workspace))) as blobs:
            yield Place(state, blobs, path.parent, emit, nothing)
    finally:
        if journal is not None:
            journal.close()


def _preview(place: Place, step: int | None, redo: bool) -> Preview:
    state, blobs = place.state, place.blobs
    target, moves = destination(place, step, redo)
    history, other = list(state.history), list(target.history)
    same = next(
        (n for n, (a, b) in enumerate(zip(history, other, strict=False)) if a is not b and a != b),
        min(len(history), len(other)),
    )
    left = [move.path for move in moves if not move.possible]
    return Preview(
        target.step,
        tuple(history[same:]),
        tuple(other[same:]),
        diff_of(moves, blobs),
        tuple(move.path for move in moves if move.possible),
        _conflicts(moves),
        (*left, *state.left_out),
    )


def destination(
    place: Place, step: int | None, redo: bool = False, files: bool = True
) -> tuple[AgentState, list[Move]]:
    """The state to go to, and the moves of files that lead there."""
    state = place.state
    if redo:
        if not state.undone:
            raise UsageError("there is nothing to redo")
        undone = state.undone[0]
        moves = redo_moves(state.workspace, undone.event.before, undone.event.after, place.blobs)
        return undone.state, moves
    target = state.marks[mark_of(state, step)]
    if not files:
        return target, []
    changes = state.changes.since(len(target.changes))
    return target, undo_moves(state.workspace, changes, place.blobs)


def mark_of(state: AgentState, step: int | None) -> int:
    """The index of the mark at the end of a step, or without a step, before the last task.

    Raises:
        UsageError: there is no such mark.
    """
    marks = list(state.marks)
    if not marks:
        raise UsageError("nothing was done in this session yet")
    if step is None:
        here = len(state.history)
        for number in range(len(marks) - 1, -1, -1):
            if marks[number].turn and len(marks[number].history) < here:
                return number
        raise UsageError("there is nothing to undo")
    if step == 0:
        return 0
    for number in range(len(marks) - 1, -1, -1):
        if marks[number].step == step and not marks[number].turn:
            return number
    last = max(mark.step for mark in marks)
    raise UsageError(f"there is no step {step} to go back to", hint=f"The last one is {last}")


async def _travel(
    session: Session,
    step: int | None,
    *,
    redo: bool = False,
    messages: bool = True,
    files: bool = True,
    force: bool = False,
) -> Travelled:
    async with opened_place(session) as place:
        for change in await place.settle():
            await place.emit(change)
        target, moves = await asyncio.to_thread(destination, place, step, redo, files)
        quarantine, done = await make(place, moves, force=force)
        await place.settle()  # so that these writes do not count as changes by someone else
        await place.emit(
            Rewound(
                0 if redo else mark_of(place.state, step),
                {move.path: move.now for move in done if move.now},
                {move.path: move.target for move in done if move.target},
                redo,
                messages,
            )
        )
        return Travelled(target.step, tuple(move.path for move in done), quarantine)


async def make(place: Place, moves: list[Move], *, force: bool) -> tuple[Path | None, list[Move]]:
    """Make the moves, all or none; with ``force``, changes by others are set aside first.

    Raises:
        ConflictError: files were changed by someone else since.
        SnapshotError: a file cannot be restored.
    """
    contested = [move for move in moves if move.conflict]
    if contested and not force:
        raise ConflictError(
            f"{counted(len(contested), 'file was', 'files were')} changed by someone else: "
            + ", ".join(f"{move.path} ({move.conflict})" for move in contested),
            tuple(move.path for move in contested),
            hint="Use --force to replace them; copies are kept in a folder",
        )
    quarantine = None
    if contested:
        quarantine = set_aside(contested, place.folder / "quarantine", place.blobs)
    return quarantine, await asyncio.to_thread(carry_out, place.state.workspace, moves, place.blobs)


def _conflicts(moves: list[Move]) -> tuple[Conflict, ...]:
    return tuple(Conflict(move.path, move.conflict) for move in moves if move.conflict)


def _paths(changes: list[WorkspaceChanged]) -> tuple[str, ...]:
    own = [each for each in changes if not each.outside]
    return tuple(sorted({path for each in own for path in (*each.before, *each.after)}))
