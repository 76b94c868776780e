"""An end that was decided on, and how it is carried to the place where runs end."""

from __future__ import annotations

from dataclasses import dataclass

from agentcli.agent.events import Status, StopReason
from agentcli.agent.state import STATUS_OF
from agentcli.errors import AgentCLIError, Place


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends and what it came to; ``error`` and ``place`` as in ``RunFinished``."""

    reason: StopReason
    status: Status
    answer: str = ""
    detail: str = ""
    error: str = ""
    place: Place | None = None


class Stopped(Exception):
    """Ends a run from within a step."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.detail)
        self.stop = stop


def stop_for(reason: StopReason, *, answer: str = "", detail: str = "") -> Stop:
    """A stop with the status that its reason always has."""
    return Stop(reason, STATUS_OF[reason], answer, detail)


def stop_by(reason: StopReason, error: AgentCLIError, place: Place) -> Stop:
    """A stop that an error led to; it arose in ``place`` unless it says otherwise."""
    name = type(error).__name__
    return Stop(reason, STATUS_OF[reason], "", error.line(), name, error.place or place)
