"""The budgets of a run, and whether one more request fits into them.

A request is not sent if its estimated prompt alone exceeds the remaining tokens or dollars, and
its answer is limited to what remains: a run stops before it exceeds its budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from agentcli.agent.events import StopReason
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stop, Stopped, stop_for
from agentcli.llm.client import ModelInfo
from agentcli.messages import Usage
from agentcli.text import counted

Price: TypeAlias = Callable[[Usage], float | None]
"""Maps the usage of one call to US dollars; None if the price is not known."""

_LEAST_ANSWER = 16
"""In tokens. Providers refuse a lower limit."""
_ANY = 1 << 40


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a run may use; None means unlimited. Times in seconds, cost in US dollars."""

    max_steps: int = 100
    time_s: float | None = None
    step_time_s: float | None = None
    """For one step, including its retries and tools."""
    silence_s: float | None = 600.0
    """Between two pieces of an answer; keep-alive messages do not count."""
    tokens: int | None = None
    """Input and output together."""
    cost_usd: float | None = None
    tool_calls: int | None = None
    rejected_answers: int = 3
    """Unusable answers in a row before the run gives up."""
    check_rounds: int = 3
    """How often failed checks are reported back to the model."""

    def of_task(self) -> dict[str, float]:
        """The limits that are recorded with a task."""
        names = ("max_steps", "time_s", "tokens", "cost_usd", "tool_calls")
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def counts_tokens(self) -> bool:
        """Whether a request's tokens must be counted before it is sent."""
        return self.tokens is not None or self.cost_usd is not None


def used_up(limits: RunLimits, state: AgentState) -> Stop | None:
    """The stop for a run that has reached a limit, or None."""
    used = state.used
    if used.steps >= limits.max_steps:
        return stop_for(StopReason.BUDGET_STEPS, detail=all_used(limits.max_steps, "step"))
    if limits.tokens is not None and used.usage.total_tokens >= limits.tokens:
        return stop_for(
            StopReason.BUDGET_TOKENS,
            detail=f"{used.usage.total_tokens} of {limits.tokens} tokens are used up",
        )
    if limits.cost_usd is not None:
        if state.cost_usd is None:
            detail = f"the cost so far is not known, so ${limits.cost_usd:g} may be used up"
            return stop_for(StopReason.BUDGET_COST, detail=detail)
        if state.cost_usd >= limits.cost_usd:
            detail = f"${state.cost_usd:.4f} of ${limits.cost_usd:g} are used up"
            return stop_for(StopReason.BUDGET_COST, detail=detail)
    if limits.tool_calls is not None and used.tool_calls >= limits.tool_calls:
        detail = all_used(limits.tool_calls, "tool call")
        return stop_for(StopReason.BUDGET_TOOLS, detail=detail)
    return None


def all_used(number: int, what: str) -> str:
    """``1 step is used up``, ``3 steps are used up``."""
    return f"{counted(number, what)} {'is' if number == 1 else 'are'} used up"


def answer_room(
    limits: RunLimits, state: AgentState, prompt_tokens: int, price: Price
) -> int | None:
    """Tokens that the answer to a prompt of ``prompt_tokens`` may take; None if unlimited.

    Raises:
        Stopped: the prompt alone would exceed a budget.
    """
    rooms: list[int] = []
    if limits.tokens is not None:
        used = state.used.usage.total_tokens
        rooms.append(limits.tokens - used - prompt_tokens)
        if rooms[-1] < _LEAST_ANSWER:
            raise Stopped(
                stop_for(
                    StopReason.BUDGET_TOKENS,
                    detail=f"{used} of {limits.tokens} tokens are used up, "
                    f"and the next request takes about {prompt_tokens}",
                )
            )
    if limits.cost_usd is not None and state.cost_usd is not None:
        rooms.append(_affordable(limits.cost_usd - state.cost_usd, state, prompt_tokens, price))
        if rooms[-1] < _LEAST_ANSWER:
            raise Stopped(
                stop_for(
                    StopReason.BUDGET_COST,
                    detail=f"${state.cost_usd:.4f} of ${limits.cost_usd:g} are used up, "
                    "and the next request would go beyond",
                )
            )
    room = min(rooms, default=_ANY)
    return None if room >= _ANY else room


def _affordable(dollars: float, state: AgentState, prompt_tokens: int, price: Price) -> int:
    """Output tokens that ``dollars`` pay for after the prompt."""
    # If the provider reports cached tokens, the last step's prompt is billed at the cached rate.
    last = state.records[-1].usage if len(state.records) else Usage()
    cached = last.input_tokens if state.usage.cached_tokens else 0
    prompt = price(Usage(prompt_tokens, min(cached, prompt_tokens)))
    thousand = price(Usage(output_tokens=1000))
    if prompt is None or thousand is None:
        detail = (
            f"the price of {state.model} is not known; bound its tokens instead, or set priced_by "
            "for its provider"
        )
        raise Stopped(stop_for(StopReason.BUDGET_COST, detail=detail))
    return int((dollars - prompt) * 1000 / thousand) if thousand > 0 else _ANY


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Limits for the tokens of a request.

    Above ``soft`` the conversation is compacted, to ``target`` if possible. A request of more than
    ``hard`` tokens is never sent.
    """

    soft: int
    hard: int
    target: int


@dataclass(frozen=True, slots=True)
class ContextRules:
    """How the limits follow from a model's context window, and settings that override them.

    ``reserve_tokens`` are kept for the answer; None reserves the longest answer that the model may
    give, but at most a quarter of the window. ``compact_at`` and ``compact_to`` are fractions of
    the hard limit.
    """

    soft_tokens: int | None = None
    hard_tokens: int | None = None
    reserve_tokens: int | None = None
    compact_at: float = 0.8
    compact_to: float = 0.4

    def limits(self, window: int | None, answer_tokens: int) -> ContextLimits | None:
        """The limits for a window; None if the window is not known and no limit is set."""
        hard = self.hard_tokens
        if window is not None:
            reserve = self.reserve_tokens or min(answer_tokens, window // 4)
            room = max(1, window - reserve)
            hard = min(hard or room, room)
        if hard is None:
            hard = self.soft_tokens
        if hard is None:
            return None
        soft = min(self.soft_tokens or int(hard * self.compact_at), hard)
        return ContextLimits(soft, hard, min(int(hard * self.compact_to), soft))


def calls_used_up(limits: RunLimits, state: AgentState) -> str | None:
    """Why no further call may run, even within a step; None if one may."""
    limit = limits.tool_calls
    if limit is None or state.used.tool_calls < limit:
        return None
    return f"the budget of {limit} tool calls is used up"


def unpriced(info: ModelInfo) -> Price:
    """The price of a model whose price is not known."""

    def unknown(usage: Usage) -> None:
        return None

    return unknown
