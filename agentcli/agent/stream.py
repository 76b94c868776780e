"""The stream of a run's events: each is recorded in the log, then folded, then shown.

Hooks and the reader of the run see the same events in the same order. A failing hook is reported
once and stops nothing; a log that cannot be written ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

from agentcli.agent.events import (
    Event,
    EventLog,
    PhaseChanged,
    TaskGiven,
    ToolFinished,
    ToolStarted,
    Warned,
)
from agentcli.agent.folding import fold
from agentcli.agent.hooks import Allow, Deny, Hook
from agentcli.agent.phase import during
from agentcli.agent.run import Run
from agentcli.agent.state import AgentState
from agentcli.errors import AgentCLIError, JournalError
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolKind


class Stream:
    """Emits events. ``state`` is the fold of the durable ones; ``run`` passes all to its reader."""

    def __init__(self, log: EventLog, hooks: Sequence[Hook], state: AgentState) -> None:
        self.state = state
        self.run: Run | None = None
        self._log = log
        self._hooks = hooks
        self._failed_hooks: set[int] = set()
        self._emitting = asyncio.Lock()

    async def emit(self, event: Event, *, sync: bool = False) -> None:
        """Record, fold and show one event. Parallel tools wait for each other here.

        Raises:
            JournalError: it could not be recorded, and is not folded.
        """
        async with self._emitting:
            if event.durable:
                try:
                    await self._log.append(event, sync=sync)
                except asyncio.CancelledError:
                    self._fold(event)  # it was recorded nevertheless
                    raise
                self._fold(event)
            await self._show(event)
            if (moved := self._phase_change(event)) is not None:
                await self._log.append(moved)
                self._fold(moved)
                await self._show(moved)

    async def tell(self, event: Event) -> None:
        """Fold and show an event that the log can no longer record."""
        self._fold(event)
        await self._show(event)

    async def verdict(self, call: ToolCall) -> ToolResult | None:
        """The result given by the first hook that does not allow the call; None if all do."""
        for index, hook in enumerate(self._hooks):
            try:
                verdict = await hook.before_tool(call, self.state)
            except Exception as error:
                async with self._emitting:
                    await self._report(index, hook, error)
                continue
            match verdict:
                case Allow():
                    continue
                case Deny(reason):
                    return ToolResult(call.id, call.name, f"denied: {reason}", Outcome.DENIED)
                case _:
                    return replace(verdict.result, call_id=call.id, name=call.name)
        return None

    async def resolve_calls(self) -> None:
        """Give every call without a result one, so that the history is well-formed."""
        for call in self.state.unresolved:
            result = interrupted(call, call.id in self.state.started)
            await self.emit(ToolFinished(self.state.running_step, result))

    def _fold(self, event: Event) -> None:
        self.state = fold(self.state, event)
        if self.run is not None and not self.run.ended:
            self.run.recorded.append(event)

    async def _show(self, event: Event) -> None:
        if self.run is not None:
            await self.run.put(event)
        for index, hook in enumerate(self._hooks):
            try:
                await hook.on_event(event, self.state)
            except Exception as error:
                await self._report(index, hook, error)

    async def _report(self, index: int, hook: Hook, error: Exception) -> None:
        if index in self._failed_hooks:
            return
        self._failed_hooks.add(index)
        why = error.line() if isinstance(error, AgentCLIError) else repr(error)
        warned = Warned(f"hook {hook.name} failed: {why}")
        with contextlib.suppress(JournalError):
            await self._log.append(warned)
            self._fold(warned)
        if self.run is not None:
            await self.run.put(warned)

    def _phase_change(self, event: Event) -> PhaseChanged | None:
        state = self.state
        match event:
            case ToolStarted(tool_kind=kind, purpose=purpose) if kind:
                phase = during(state.progress, ToolKind(purpose or kind))
            case ToolFinished() if state.started.keys() <= {r.call_id for r in state.results}:
                phase = state.progress.phase
            case TaskGiven():
                phase = state.progress.phase
            case _:
                return None
        if phase is state.phase:
            return None
        return PhaseChanged(state.running_step, state.phase, phase)


def interrupted(call: ToolCall, started: bool) -> ToolResult:
    """The result of a call that a cancellation, or the end of its process, interrupted."""
    if started:
        text = "interrupted before its end; what it did so far is unknown"
        return ToolResult(call.id, call.name, text, Outcome.CANCELLED)
    return ToolResult(call.id, call.name, "not started: the run was stopped", Outcome.SKIPPED)
