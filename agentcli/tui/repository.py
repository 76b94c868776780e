"""``/diff`` and ``/commit``: show and commit the session's changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from agentcli.changes import Changes
from agentcli.errors import UsageError
from agentcli.own_changes import own_changes
from agentcli.session import timetravel
from agentcli.text import counted
from agentcli.tui.entries import Level, Shown
from agentcli.tui.face import Face, agent_of, check_idle, doing

_NAMED = 5


class Repository:
    """The commands. In the user's index only the entries of committed files change."""

    def __init__(self, face: Face) -> None:
        self._face = face

    async def diff(self, argument: str) -> None:
        """Show the session's changes, or with ``all`` everything that differs from HEAD."""
        face = self._face
        if argument not in ("", "all"):
            raise UsageError(f"/diff {argument} is not known", hint="/diff, or /diff all")
        if argument:
            changes = self._changes()
            paths = await asyncio.to_thread(changes.uncommitted)
            diff = await asyncio.to_thread(changes.diff, paths) if paths else ""
            files, since = len(paths), "the last commit"
        else:
            diff, files = await timetravel.changed(agent_of(face))
            since = "the session began"
        if not diff:
            face.tell(f"no file differs since {since}")
            return
        face.added(Shown(f"**{counted(files, 'file')}** changed since {since}", diff))

    async def commit(self, argument: str) -> None:
        """Draft a commit message in the prompt, or commit with the given message."""
        face, agent = self._face, agent_of(self._face)
        assert face.conversation is not None
        check_idle(face)
        changes = self._changes()
        differing = await asyncio.to_thread(changes.uncommitted)
        async with timetravel.opened_place(agent, only_look=True) as place:
            found = await asyncio.to_thread(
                own_changes,
                face.options.workspace,
                timetravel.changed_paths(agent) & differing,
                list(place.state.changes),
                changes,
                place.blobs,
            )
        if found.mixed:
            face.tell(
                f"left out: {_named(found.mixed)}",
                Level.WARNING,
                "The same lines have changes of yours; commit what you want of them by hand",
            )
            if not found.paths:
                return
        if not found.paths:
            raise UsageError("this session has no changes that git does not already have")
        if argument:
            name = await asyncio.to_thread(changes.commit, found.paths, argument, found.parts)
            face.tell(f"commit {name}: {argument.splitlines()[0]} ({_named(found.paths)})")
            return
        with doing(face, "drafting a message"):
            message, problem = await face.conversation.draft(changes, found.paths, found.parts)
        if problem:
            face.tell(problem, Level.WARNING)
        face.tell(f"to be committed: {_named(found.paths)}", hint="Edit the message; Enter commits")
        if found.parts:
            face.tell(
                f"of {_named(list(found.parts))} only what this session changed is committed; "
                "your own changes stay in the file, uncommitted"
            )
        face.write(f"/commit {message}")

    def _changes(self) -> Changes:
        agent = agent_of(self._face)
        if agent.context.environment.root != str(self._face.options.workspace):
            raise UsageError("git is used on this machine only, but the tools act elsewhere")
        return Changes(self._face.options.workspace, os.environ)


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
