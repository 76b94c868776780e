"""Budgets end a run before it overspends."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import StopReason
from agentcli.agent.state import AgentState
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Usage
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import tool
from tests.agent.conftest import Bench, Make
from tests.server import Reply


async def echo(context: ToolContext, text: str) -> str:
    """Say it again."""
    return text


ECHO = tool(echo, ToolKind.READ)
USED = Usage(input_tokens=1000, output_tokens=100)
STEPS = [Reply(calls=[("echo", {"text": "x"})], usage=USED) for _ in range(9)]


def price_of(info: ModelInfo) -> Any:
    """$1 per 1,000 input tokens and $2 per 1,000 output tokens."""

    def price(usage: Usage) -> float | None:
        return None if info.id == "free?" else usage.input_tokens / 1e3 + usage.output_tokens / 500

    return price


async def spend(make: Make, script: list[Any], **limits: Any) -> Bench:
    bench = await make(script, [ECHO], limits=RunLimits(**limits), price_of=price_of)
    await bench.run()
    return bench


async def test_every_call_is_paid_for(bench: Make) -> None:
    rejected = Reply(text="", usage=USED)
    made = await spend(bench, [rejected, *STEPS[:2], "done"])
    last = Usage(input_tokens=100, output_tokens=10)
    assert made.agent.state.cost_usd == pytest.approx(3 * 1.2 + 0.12)
    assert made.agent.state.usage == USED + USED + USED + last


async def test_a_broken_answer_with_a_token_count_is_paid_for(bench: Make) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}\n\n'
    made = await spend(bench, [Reply(body=usage, stream=True), "done"])
    assert made.agent.state.retries == 1
    assert made.agent.state.cost_usd == pytest.approx(1.2 + 0.12)


async def test_one_unknown_price_makes_the_sum_unknown(bench: Make) -> None:
    made = await spend(bench, [STEPS[0], Reply(text="done", usage=None)])
    assert made.agent.state.cost_usd is None


@pytest.mark.parametrize("dollars", [0.001, 2.0, 3.3, 5.7])
async def test_cost(bench: Make, dollars: float) -> None:
    made = await spend(bench, STEPS, cost_usd=dollars)
    state = made.agent.state
    assert (state.stop, state.cost_usd is not None) == (StopReason.BUDGET_COST, True)
    assert (state.cost_usd or 0) <= dollars and f"of ${dollars:g}" in state.detail
    if dollars > 3:
        assert len(made.server.requests) >= 2


async def test_a_budget_in_dollars_needs_a_known_price(bench: Make) -> None:
    made = await bench(STEPS, [ECHO], limits=RunLimits(cost_usd=5.0), price_of=price_of)
    client = made.agent.client
    assert isinstance(client, OpenAIChat)
    client.info = dataclasses.replace(client.info, id="free?")
    result = await made.run()
    assert result.state.stop is StopReason.BUDGET_COST and "not known" in result.state.detail
    assert made.server.requests == []


async def test_tokens_are_estimated_if_the_server_reports_none(bench: Make) -> None:
    uncounted = [dataclasses.replace(reply, usage=None) for reply in STEPS]
    made = await spend(bench, uncounted, tokens=600)
    assert made.agent.state.stop is StopReason.BUDGET_TOKENS
    assert 0 < made.agent.state.usage.total_tokens <= 600


async def test_the_answer_is_bounded_by_what_is_left(bench: Make) -> None:
    made = await spend(bench, [Reply(text="and so", finish="length", usage=USED)] * 9, tokens=1150)
    assert made.agent.state.stop is StopReason.BUDGET_TOKENS
    assert len(made.server.requests) == 1
    assert 16 <= made.server.requests[0].json["max_tokens"] < 1150


def test_a_fresh_state_has_cost_nothing() -> None:
    assert AgentState().cost_usd == 0.0


async def test_one_step_is_used_up(bench: Make) -> None:
    made = await spend(bench, STEPS, max_steps=1)
    assert made.agent.state.detail == "1 step is used up"
