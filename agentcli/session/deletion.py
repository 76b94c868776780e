"""Deletes a session and the checkpoints of its workspace that no other session needs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from agentcli.environments.blobs import Blobs
from agentcli.environments.snapshots import INDEX, files_of, folder_of
from agentcli.errors import JournalError, SnapshotError
from agentcli.folders import data_folder
from agentcli.session.journal import Journal
from agentcli.session.store import (
    Condition,
    journal_path,
    list_sessions,
    one_begins,
    unreadable_sessions,
)

_CONTENT = re.compile(rb'"(?:file|link) [0-7]+ ([0-9a-f]{40})"')
_TREE = re.compile(rb'"tree":"([0-9a-f]{40})"')


def delete_session(session_id: str) -> None:
    """Delete a session permanently.

    Raises:
        JournalError: it is open in another process, or cannot be deleted.
    """
    path = journal_path(session_id)
    workspaces = {each.workspace for each in list_sessions() if each.id == session_id}
    journal = Journal(path)  # fails if another process is writing it
    try:
        shutil.rmtree(path.parent)
    except OSError as error:
        raise JournalError(f"cannot delete {path.parent}: {error.strerror}") from error
    finally:
        journal.close()
    for workspace in workspaces:
        _drop_unused(workspace)


def _drop_unused(workspace: str) -> None:
    """Drop contents that no session of a workspace refers to, unless one is running.

    Sessions that cannot be read or are just beginning count too, as they may belong to this
    workspace.
    """
    if one_begins():
        return
    folder = folder_of(data_folder(), workspace)
    left = [each for each in list_sessions() if each.workspace == workspace]
    journals = [each.path for each in left] + [journal_path(each) for each in unreadable_sessions()]
    if not journals:
        shutil.rmtree(folder, ignore_errors=True)
    elif all(each.condition is not Condition.RUNNING for each in left):
        keep_only(folder, journals)


def keep_only(folder: Path, journals: list[Path]) -> None:
    """Rewrite the packs with only the contents that the journals and the index refer to."""
    blobs = Blobs(folder)
    texts = [path.read_bytes() for path in (*journals, folder / INDEX) if path.exists()]
    trees = {match.decode() for text in texts for match in _TREE.findall(text)}
    wanted = trees | {match.decode() for text in texts for match in _CONTENT.findall(text)}
    for tree in trees & blobs.places().keys():
        wanted |= {entry.rsplit(" ", 1)[-1] for entry in files_of(blobs, tree).values()}
    there = {digest: place for digest, place in blobs.places().items() if digest in wanted}
    if 2 * sum(length for _, _, length in there.values()) > blobs.kept_bytes:
        return  # not worth the effort
    old = [*folder.glob("*.pack"), *folder.glob("*.idx")]
    new = Blobs(folder, empty=True)
    try:
        for digest in there:
            new.put(blobs.get(digest))
        new.close()
    except SnapshotError:
        return  # no space for the new packs; nothing was lost
    for path in old:
        path.unlink(missing_ok=True)
