"""Hooks read a run's events, and can answer or deny tool calls.

A hook gets frozen events and the read-only state, never the agent. A hook that fails is reported
once and never stops a run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeAlias

from agentcli.agent.events import Event
from agentcli.agent.records import kind, to_record
from agentcli.agent.state import AgentState
from agentcli.messages import ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the call proceed."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse the call; the model reads the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Answer the call with this result; the tool does not run."""

    result: ToolResult


Verdict: TypeAlias = Allow | Deny | Replace


class Hook:
    """Override the methods you need; by default they do nothing."""

    @property
    def name(self) -> str:
        """The name used in messages about the hook."""
        return type(self).__name__

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Called after each event, in order; the state already includes it."""

    async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
        """Called before a tool starts. The first verdict other than ``Allow`` decides."""
        return Allow()


class LoggerHook(Hook):
    """Writes each durable event to a logger, one line each."""

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logger or logging.getLogger("agentcli.run")
        self._level = level

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Log the event's kind and fields; long values are truncated."""
        if not event.durable or not self._logger.isEnabledFor(self._level):
            return
        record = to_record(event)
        name = record.pop("kind", kind(event))
        shown = " ".join(f"{key}={_short(value)}" for key, value in record.items())
        self._logger.log(self._level, "%s %s", name, shown)


def _short(value: object, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
