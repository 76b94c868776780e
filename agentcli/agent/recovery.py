"""Which failures are retried, and after how long.

The class of an error decides, never its words. Rate limits, server errors and broken connections
are retried; a missed deadline or a content filter may succeed the second time and gets two attempts
in all; wrong keys, empty accounts and refused requests are never retried.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from agentcli.errors import (
    AgentCLIError,
    ConnectError,
    DeadlineError,
    EnvironmentOpError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamBrokenError,
    ToolError,
)


class Chance(Enum):
    """How likely another attempt is to help."""

    RETRY = "retry"
    MAYBE = "maybe"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """Exponential backoff. Times in seconds; ``attempts`` includes the first."""

    attempts: int = 4
    maybe_attempts: int = 2
    first_delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 30.0
    jitter: float = 0.2
    max_retry_after_s: float = 120.0


TOOL_RETRIES = RetryConfig(attempts=3, first_delay_s=0.1, max_delay_s=2.0)
"""For idempotent tools whose worker died or whose machine was out of something for a moment."""

TRANSIENT = frozenset({"EPIPE", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "EMFILE", "ENFILE"})
"""Codes of an environment's errors that may be gone at the next attempt."""


def chance(error: ProviderError) -> Chance:
    """What kind of failure this is."""
    match error:
        case RateLimitError() | ServerError() | ConnectError() | StreamBrokenError():
            return Chance.RETRY
        case DeadlineError():
            return Chance.MAYBE
        case _:
            return Chance.NONE


def delay_s(config: RetryConfig, error: ProviderError, attempt: int) -> float | None:
    """Seconds to wait after the failed attempt number ``attempt`` (from 1); None: give up."""
    allowed = {
        Chance.RETRY: config.attempts,
        Chance.MAYBE: min(config.maybe_attempts, config.attempts),
        Chance.NONE: 1,
    }[chance(error)]
    if attempt >= allowed:
        return None
    if error.retry_after_s is not None:
        if error.retry_after_s > config.max_retry_after_s:
            return None
        return max(0.0, error.retry_after_s)
    return backoff_s(config, attempt)


def backoff_s(config: RetryConfig, attempt: int) -> float:
    """Seconds to wait after the failed attempt number ``attempt`` (from 1)."""
    delay = min(config.first_delay_s * config.factor ** (attempt - 1), config.max_delay_s)
    return delay * (1 + random.uniform(0, config.jitter))


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """Which errors of a stage a run survives, and how many of them: the step is begun anew.

    Tools are another matter: what they raise is the result of their call. Providers as well: they
    have attempts and fallbacks. What is left are faults in code that users bring along.
    """

    limit: int = 3

    def covers(self, error: Exception, count: int) -> bool:
        """Whether to go on after ``error``, which would be recovery number ``count`` of the run."""
        if isinstance(error, AgentCLIError) and not isinstance(
            error, ToolError | EnvironmentOpError
        ):
            return False
        return count <= self.limit and not isinstance(error, TimeoutError)
