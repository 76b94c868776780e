"""Records what tools changed in the workspace as events, for undo, redo, fork and replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agentcli.agent.events import Warned, WorkspaceChanged, WorkspaceTaken
from agentcli.agent.stream import Stream
from agentcli.environments.base import Changes


class Recorder(Protocol):
    """Notices changes in a workspace and keeps the previous contents."""

    @property
    def problem(self) -> str:
        """Why contents are not kept; empty if they are."""
        ...

    def taken(self) -> tuple[str, tuple[str, ...]] | None:
        """The digest of the list of all files at the start, and what it leaves out.

        Given only once; after that None.
        """
        ...

    async def drain(self) -> Sequence[Changes]:
        """The changes since the last call, in order."""
        ...


class Recording:
    """Emits the changes that a recorder has noticed; without a recorder, nothing."""

    def __init__(self, recorder: Recorder | None, stream: Stream) -> None:
        self._recorder = recorder
        self._stream = stream
        self._told = ""
        self._noting = asyncio.Lock()

    async def note(self, step: int) -> None:
        """Record the changes since the last call as made in this step.

        Parallel calls wait for each other here, so that changes are recorded in their order.

        Raises:
            JournalError: they could not be recorded.
        """
        if self._recorder is not None:
            # Finish even if cancelled, or what the recorder has handed over would be lost.
            await asyncio.shield(self._note(self._recorder, step))

    async def _note(self, recorder: Recorder, step: int) -> None:
        async with self._noting:
            found = await recorder.drain()
            if (taken := recorder.taken()) is not None:
                await self._stream.emit(WorkspaceTaken(*taken))
            for changes in found:
                await self._stream.emit(
                    WorkspaceChanged(step, changes.before, changes.after, changes.outside)
                )
            if recorder.problem and not self._told:
                self._told = recorder.problem
                await self._stream.emit(
                    Warned(f"from here on, not every change of files can be undone: {self._told}")
                )
