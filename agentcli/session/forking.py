"""Forks a session: makes a second one with the same past, in the same workspace or in a copy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentcli.agent.events import Rewound, WorkspaceChanged
from agentcli.agent.folding import fold
from agentcli.agent.state import AgentState
from agentcli.environments.blobs import Blobs
from agentcli.environments.snapshots import Snapshots, files_of, folder_of
from agentcli.errors import JournalError, UsageError
from agentcli.folders import data_folder
from agentcli.llm.client import ChatResponse
from agentcli.messages import FinishReason, Role, Usage
from agentcli.session.journal import Journal, line_mark, open_regular, read_events
from agentcli.session.moves import write_files
from agentcli.session.store import journal_path, new_session_id
from agentcli.session.timetravel import Session, destination, make, mark_of, opened_place, state_of


async def fork(
    session: Session,
    step: int | None = None,
    *,
    workspace: Path | None = None,
    force: bool = False,
) -> str:
    """Make a new session that continues from the end of ``step``, or from now; return its id.

    If ``workspace``, a folder that must not exist yet, is given, the new session works there in a
    copy of the workspace as it was at that point, without ignored files. Otherwise it works in the
    same workspace, whose files are moved back.

    Raises:
        UsageError: there is no such session or step, or the folder already exists.
        ConflictError, SnapshotError, JournalError: see ``timetravel.rewind``.
    """
    if workspace is not None:
        mark = None if step is None else mark_of(state_of(session), step)
        return await asyncio.to_thread(fork_into, state_of(session), mark, workspace)
    async with opened_place(session) as place:
        new_id = new_session_id()
        if step is None:
            _copy_journal(place.state, new_id, place.state.workspace)
            return new_id
        for change in await place.settle():
            await place.emit(change)
        _, moves = await asyncio.to_thread(destination, place, step)
        await make(place, moves, force=force)
        await place.settle()
        mark = mark_of(place.state, step)
        _copy_journal(place.state, new_id, place.state.workspace, mark)
        await _append(new_id, Rewound(mark, {}, {}))
        return new_id


def fork_into(state: AgentState, mark: int | None, workspace: Path) -> str:
    """Fork into a copy of the workspace as it was at a mark, or is now; see ``fork``."""
    source = folder_of(data_folder(), state.workspace)
    workspace = workspace.absolute()
    blobs = Blobs(source)
    try:
        files = files_at(state, mark, blobs)
        try:
            workspace.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"cannot make {workspace}: {error.strerror}") from error
        write_files(files, workspace, blobs)
    finally:
        blobs.close()
    repository = Path(state.workspace) / ".git"
    if repository.is_dir():
        shutil.copytree(repository, workspace / ".git", symlinks=True)
    _share(source, folder_of(data_folder(), str(workspace)))
    new_id = new_session_id()
    _copy_journal(state, new_id, str(workspace), mark)
    if mark is not None:
        asyncio.run(_append(new_id, Rewound(mark, {}, {})))
    return new_id


def files_at(state: AgentState, mark: int | None, blobs: Blobs) -> Mapping[str, str]:
    """Map paths to entries for all files as they were at a mark, or as now recorded.

    Raises:
        SnapshotError: the list of files was not kept.
    """
    changes = state.changes.since(0)
    here = len(changes) if mark is None else len(state.marks[mark].changes)
    earlier = [tree for tree in state.trees if tree[0] <= here]
    later = [tree for tree in state.trees if tree[0] > here]
    if earlier:
        at, tree = earlier[-1]
        return _applied(files_of(blobs, tree), changes[at:here])
    if later:
        at, tree = later[0]
    else:  # no tool that changes files has run, so the present files are those of the past
        snapshots = Snapshots(state.workspace, blobs.folder)
        snapshots.take()
        at, tree = len(changes), snapshots.taken
        files = files_of(snapshots.blobs, tree)
        snapshots.close()
        blobs.forget_index()
        return _applied(files, changes[here:at], back=True)
    return _applied(files_of(blobs, tree), changes[here:at], back=True)


def _applied(
    files: Mapping[str, str], changes: Sequence[WorkspaceChanged], *, back: bool = False
) -> dict[str, str]:
    found = dict(files)
    for change in reversed(changes) if back else changes:
        gone, come = (change.after, change.before) if back else (change.before, change.after)
        for path in gone:
            found.pop(path, None)
        found.update(come)
    return found


def answers_after(state: AgentState, mark: int) -> list[ChatResponse]:
    """The model's answers after a mark that were not undone."""
    said = state.history.since(len(state.marks[mark].history))
    return [
        ChatResponse(
            message, FinishReason.TOOL_CALLS if message.calls else FinishReason.STOP, Usage()
        )
        for message in said
        if message.role is Role.ASSISTANT
    ]


def _copy_journal(state: AgentState, new_id: str, workspace: str, mark: int | None = None) -> None:
    """Copy a journal's lines up to a mark, with their times, under another session id."""
    source, target = journal_path(state.session_id), journal_path(new_id)
    end = None if mark is None else _lines_to(source, mark)
    try:
        with open_regular(source) as file:
            lines = file.read().splitlines(keepends=True)[:end]
        target.parent.mkdir(parents=True, mode=0o700)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            for line in lines:
                if line_mark("session_started") in line:
                    record = json.loads(line)
                    record |= {"session_id": new_id, "workspace": workspace}
                    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
                copy.write(line)
    except OSError as error:
        raise JournalError(f"cannot copy the journal {source}: {error.strerror}") from error


def _lines_to(journal: Path, mark: int) -> int:
    """How many lines of a journal lead to one of its marks."""
    state = AgentState()
    lines: dict[int, int] = {}
    for number, event in enumerate(read_events(journal), start=1):
        known, state = len(state.marks), fold(state, event)
        if len(state.marks) > known and not isinstance(event, Rewound):  # a redo repeats marks
            lines[id(state.marks[-1])] = number
    return lines[id(state.marks[mark])]


async def _append(session_id: str, event: Rewound) -> None:
    journal = Journal(journal_path(session_id))
    try:
        await journal.append(event, sync=True)
    finally:
        journal.close()


def _share(source: Path, target: Path) -> None:
    """Add the contents to another workspace's checkpoints, by hard links where possible."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in [*source.glob("*.pack"), *source.glob("*.idx")]:
        try:
            os.link(path, target / path.name)
        except FileExistsError:
            continue
        except OSError:
            shutil.copyfile(path, target / path.name)
