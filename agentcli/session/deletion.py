"""Deleting a session, and what was kept of its workspace when no other session needs it."""

from __future__ import annotations

import shutil

from agentcli.environments.snapshots import folder_of
from agentcli.errors import JournalError
from agentcli.session.journal import Journal
from agentcli.session.store import data_dir, journal_path, list_sessions


def delete_session(session_id: str) -> None:
    """Delete a session's folder for good.

    Raises:
        JournalError: it is open in another process, or cannot be deleted.
    """
    path = journal_path(session_id)
    sessions = list_sessions()
    workspaces = {each.workspace for each in sessions if each.id == session_id}
    needed = {each.workspace for each in sessions if each.id != session_id}
    journal = Journal(path)  # nobody else may be writing it
    try:
        shutil.rmtree(path.parent)
    except OSError as error:
        raise JournalError(f"cannot delete {path.parent}: {error.strerror}") from error
    finally:
        journal.close()
    for workspace in workspaces - needed:
        shutil.rmtree(folder_of(data_dir(), workspace), ignore_errors=True)
