"""What a run cost."""

from __future__ import annotations

import pytest

from agentcli.agent.events import AnswerRejected
from agentcli.cli.bill import Bill
from agentcli.llm.client import ModelInfo
from agentcli.llm.registry import price_of
from agentcli.messages import Usage
from tests.cli.events import answered, run_events

PRICED = ModelInfo("gpt-4o", "openai", priced_by="openai")


async def test_every_call_counts_also_those_that_were_not_used() -> None:
    bill = Bill()
    for event in [*run_events(), AnswerRejected(9, "empty", Usage(100, 0, 0, 7))]:
        bill.add(PRICED, event)
    price = price_of(PRICED)
    calls = [Usage(1000, 400, 0, 50)] * 3 + [Usage(10), Usage(100, 0, 0, 7)]
    expected = sum(price(usage) or 0 for usage in calls)
    assert expected > 0
    assert await bill.total_usd() == pytest.approx(expected)


async def test_one_unknown_price_makes_the_total_unknown() -> None:
    bill = Bill()
    assert await bill.total_usd() is None
    bill.add(PRICED, answered(1, "a"))
    bill.add(ModelInfo("mine", "vllm"), answered(2, "b"))
    assert await bill.total_usd() is None
