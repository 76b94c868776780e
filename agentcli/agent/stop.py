"""The decision to end a run, and the exception that carries it to the run's end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from agentcli.agent.events import RunFinished, Status, StopReason
from agentcli.agent.state import STATUS_OF, exit_code
from agentcli.errors import (
    AgentCLIError,
    BudgetError,
    CapabilityError,
    InternalError,
    JournalError,
    ModelError,
    Place,
    ProviderError,
    SandboxError,
)

_log = logging.getLogger("agentcli.kernel")


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ends and its outcome; ``error`` and ``place`` as in ``RunFinished``."""

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
    """A stop with the status that its reason implies."""
    return Stop(reason, STATUS_OF[reason], answer, detail)


def error_of(work: asyncio.Task[None]) -> BaseException:
    """The exception that a run's work ended with: it always ends by raising."""
    if work.cancelled():
        return asyncio.CancelledError()
    return work.exception() or InternalError("the run ended without a reason")


def stop_of(error: BaseException, place: Place) -> Stop:
    """The stop for an error that escaped from a step; ``place`` is used if the error has none."""
    match error:
        case Stopped():
            return error.stop
        case asyncio.CancelledError():
            return stop_for(StopReason.CANCELLED, detail="interrupted")
        case BudgetError():
            return _stop_by(StopReason.BUDGET_TOKENS, error, place)
        case ProviderError() | ModelError():
            return _stop_by(StopReason.PROVIDER_FAILED, error, place)
        case CapabilityError() | SandboxError():
            return _stop_by(StopReason.ENV_CAPABILITY_MISMATCH, error, place)
        case AgentCLIError():
            return _stop_by(StopReason.UNRECOVERABLE_ERROR, error, place)
        case _:
            _log.error("internal error", exc_info=error)
            return stop_for(StopReason.UNRECOVERABLE_ERROR, detail=f"internal error: {error!r}")


def finished(stop: Stop) -> RunFinished:
    """The event that ends a run with this stop."""
    return RunFinished(
        stop.reason,
        stop.status,
        stop.answer,
        stop.detail,
        exit_code(stop.reason, stop.status),
        stop.error,
        stop.place,
    )


def unrecorded(error: JournalError, place: Place) -> RunFinished:
    """The end of a run whose end could not be recorded."""
    return finished(_stop_by(StopReason.UNRECOVERABLE_ERROR, error, place))


def _stop_by(reason: StopReason, error: AgentCLIError, place: Place) -> Stop:
    name = type(error).__name__
    return Stop(reason, STATUS_OF[reason], "", error.line(), name, error.place or place)
