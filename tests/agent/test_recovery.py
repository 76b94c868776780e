"""Retries and recovery: which errors are retried, how often and when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentcli.agent.decision import Decision
from agentcli.agent.events import Recovered, StepFinished, StopReason
from agentcli.agent.module import AgentModule
from agentcli.agent.recovery import Chance, RetryConfig, chance, delay_s
from agentcli.agent.state import AgentState
from agentcli.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ContentFilterError,
    ContextWindowError,
    DeadlineError,
    JournalError,
    ModelNotFoundError,
    OverloadedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RetryExhaustedError,
    SandboxError,
    ServerError,
    StreamBrokenError,
)
from agentcli.messages import Outcome, ToolResult
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import tool
from tests.agent.conftest import Make
from tests.agent.test_kernel import ECHO, call
from tests.server import Reply

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


def test_the_providers_retry_after_wins() -> None:
    assert delay_s(CONFIG, RateLimitError("x", retry_after_s=7.5), 1) == 7.5


def test_a_retry_after_beyond_the_cap_ends_the_attempts() -> None:
    assert delay_s(CONFIG, RateLimitError("x", retry_after_s=3600), 1) is None


def test_hopeless_errors_are_not_tried_again() -> None:
    assert delay_s(CONFIG, AuthenticationError("x"), 1) is None


def test_exhaustion_keeps_the_last_error() -> None:
    last = OverloadedError("overloaded", status=529, hint="Wait")
    error = RetryExhaustedError(4, last)
    assert (error.attempts, error.last, error.status) == (4, last, 529)
    assert "after 4 attempts" in error.line() and error.exit_code == 3


class TestRuns:
    """A run recovers from three errors in the code of its user."""

    class Faulty(AgentModule):
        """A module that fails in one ``method``, so many ``times``."""

        def __init__(self, method: str, times: int, error: Exception) -> None:
            self.left = times
            self.method = method
            self.error = error

        def fail(self, method: str) -> None:
            if method == self.method and self.left:
                self.left -= 1
                raise self.error

        async def observe(self, state: AgentState) -> str:
            self.fail("observe")
            return ""

        async def decide(self, state: AgentState) -> Decision | None:
            self.fail("decide")
            return None

        async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
            self.fail("reduce")
            return ""

        def should_stop(self, state: AgentState) -> StopReason | None:
            self.fail("check_stop")
            return None

    @pytest.mark.parametrize("stage", ["observe", "decide", "reduce", "check_stop"])
    async def test_a_stage_may_fail_three_times(self, bench: Make, stage: str) -> None:
        script = [Reply(calls=[call("echo", text=str(n))]) for n in range(4)]
        module = self.Faulty(stage, 3, ValueError("oops"))
        made = await bench([*script, "done"], [ECHO], module=module)
        made.server.repeat = True
        result = await made.run()
        assert result.task_result == "done" and result.state.recoveries == 3
        events = [event for event in made.log.events if isinstance(event, Recovered)]
        assert [(e.stage, e.count, e.limit) for e in events] == [
            (stage, count, 3) for count in (1, 2, 3)
        ]
        steps = [event.step for event in made.log.events if isinstance(event, StepFinished)]
        assert steps == sorted(set(steps))  # a failed step uses up no number

    async def test_a_fourth_fault_ends_the_run(self, bench: Make) -> None:
        module = self.Faulty("observe", 4, ValueError("oops"))
        made = await bench(["never"], module=module)
        result = await made.run()
        assert result.exit_code == 5 and "oops" in result.state.detail
        assert made.server.requests == []

    async def test_the_next_run_may_fail_three_times_again(self, bench: Make) -> None:
        module = self.Faulty("observe", 3, ValueError("oops"))
        made = await bench(["one", "two"], module=module)
        await made.agent.start("one").result()
        module.left = 3
        assert (await made.agent.start("two").result()).task_result == "two"

    async def test_what_a_tool_raises_is_its_result_and_no_recovery(self, bench: Make) -> None:
        async def broken(context: ToolContext) -> str:
            """Break."""
            raise RuntimeError("boom")

        made = await bench([Reply(calls=[("broken", {})]), "done"], [tool(broken, ToolKind.READ)])
        result = await made.run()
        assert result.state.recoveries == 0 and result.task_result == "done"
        assert result.records[0].results[0].outcome is Outcome.ERROR

    @pytest.mark.parametrize(
        "error", [JournalError("disk full"), AuthenticationError("no key"), SandboxError("none")]
    )
    async def test_permanent_errors_are_not_retried(self, bench: Make, error: Exception) -> None:
        made = await bench(["never"], module=self.Faulty("observe", 1, error))
        result = await made.run()
        assert result.state.recoveries == 0 and result.exit_code in (3, 4, 5)
