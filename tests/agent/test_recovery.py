"""Which errors are tried again, how often and when."""

from __future__ import annotations

import pytest

from agentcli.agent.recovery import Chance, RetryConfig, chance, delay_s
from agentcli.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ContentFilterError,
    ContextWindowError,
    DeadlineError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RetryExhaustedError,
    ServerError,
    StreamBrokenError,
)

CONFIG = RetryConfig(jitter=0.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RateLimitError("x"), Chance.RETRY),
        (ServerError("x"), Chance.RETRY),
        (OverloadedError("x"), Chance.RETRY),
        (ConnectError("x"), Chance.RETRY),
        (StreamBrokenError("x"), Chance.RETRY),
        (DeadlineError("x"), Chance.MAYBE),
        (AuthenticationError("x"), Chance.NONE),
        (AccessDeniedError("x"), Chance.NONE),
        (QuotaError("x"), Chance.NONE),
        (ModelNotFoundError("x"), Chance.NONE),
        (BadRequestError("500 in the text means nothing"), Chance.NONE),
        (ContextWindowError("x"), Chance.NONE),
        (ContentFilterError("x"), Chance.NONE),
        (ProviderError("x"), Chance.NONE),
    ],
)
def test_the_class_decides(error: ProviderError, expected: Chance) -> None:
    assert chance(error) is expected


def test_backoff_doubles_up_to_the_cap_and_ends() -> None:
    config = RetryConfig(attempts=8, jitter=0.0)
    delays = [delay_s(config, ServerError("x"), attempt) for attempt in range(1, 9)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]


def test_jitter_only_adds_up_to_its_share() -> None:
    config = RetryConfig(jitter=0.2)
    delays = {delay_s(config, ServerError("x"), 1) for _ in range(200)}
    assert len(delays) > 100
    assert all(delay is not None and 1.0 <= delay <= 1.2 for delay in delays)


def test_maybe_errors_get_two_attempts_in_all() -> None:
    assert delay_s(CONFIG, DeadlineError("x"), 1) == 1.0
    assert delay_s(CONFIG, DeadlineError("x"), 2) is None


def test_the_providers_own_wish_goes_first() -> None:
    assert delay_s(CONFIG, RateLimitError("x", retry_after_s=7.5), 1) == 7.5


def test_a_wish_beyond_the_cap_ends_the_attempts() -> None:
    assert delay_s(CONFIG, RateLimitError("x", retry_after_s=3600), 1) is None


def test_hopeless_errors_are_not_tried_again() -> None:
    assert delay_s(CONFIG, AuthenticationError("x"), 1) is None


def test_exhaustion_keeps_the_last_error() -> None:
    last = OverloadedError("overloaded", status=529, hint="Wait")
    error = RetryExhaustedError(4, last)
    assert (error.attempts, error.last, error.status) == (4, last, 529)
    assert "after 4 attempts" in error.line() and error.exit_code == 3
