"""Which failures are retried, and after how long.

The class of an error decides, never its message. Rate limits, server errors and broken connections
are retried. A missed deadline may succeed the second time and gets two attempts in all. Wrong keys,
empty accounts, content filters and refused requests are never retried.
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
"""For idempotent tools whose worker died or whose machine briefly lacked a resource."""

TRANSIENT = frozenset({"EPIPE", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "EMFILE", "ENFILE"})
"""Error codes of an environment that may be gone at the next attempt."""


def chance(error: ProviderError) -> Chance:
    """How likely another attempt is to help after this error."""
    match error:
        case RateLimitError() | ServerError() | ConnectError() | StreamBrokenError():
            return Chance.RETRY
        case DeadlineError():
            return Chance.MAYBE
        case _:
            return Chance.NONE


def delay_s(config: RetryConfig, error: ProviderError, attempt: int) -> float | None:
    """Seconds to wait after the failed attempt number ``attempt`` (from 1); None to give up."""
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
    """Which errors of a step a run survives, and how many: after one, the step starts over.

    Errors of tools become the result of their call, and providers have retries and fallbacks. What
    is left are faults in code that library users supply.
    """

    limit: int = 3

    def covers(self, error: Exception, count: int) -> bool:
        """Whether to go on after ``error``, which would be recovery number ``count`` of the run."""
        if isinstance(error, AgentCLIError) and not isinstance(
            error, ToolError | EnvironmentOpError
        ):
            return False
        return count <= self.limit and not isinstance(error, TimeoutError)
