"""The state of a conversation as the status line shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from agentcli.agent.events import (
    Delta,
    Event,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    SessionStarted,
    StreamReset,
)
from agentcli.agent.state import AgentState
from agentcli.llm.client import UsageDelta
from agentcli.messages import Usage

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent


_LEAST_S = 0.2
"""Minimum time over which to measure a rate."""


class _First(NamedTuple):
    """The first token count of an answer, and its time."""

    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The values of the status line.

    ``context_used`` and ``window`` are in tokens, 0 if unknown. ``rate`` is in tokens a second,
    for the current or last answer of a local model. ``cost_usd`` is None if unknown.
    """

    model: str = ""
    mode: str = "ask"
    sandbox: str = ""
    usage: Usage = field(default_factory=Usage)
    context_used: int = 0
    window: int = 0
    cost_usd: float | None = 0.0
    rate: float = 0.0
    first: _First | None = None

    def after(self, event: Event, state: AgentState, agent: Agent | None) -> Standing:
        """The values after an event of this agent."""
        match event:
            case SessionStarted(model=model, mode=mode, sandbox=sandbox):
                return replace(self, model=model, mode=mode, sandbox=sandbox)
            case ModelChanged(model=model):
                return replace(self, model=model, rate=0.0, first=None)
            case ModeChanged(mode=mode):
                return replace(self, mode=mode)
            case Delta(delta=UsageDelta(usage=usage)) if usage.output_tokens and _is_local(agent):
                return self._decoding(_First(time.monotonic(), usage.output_tokens))
            case StreamReset():
                return replace(self, first=None)
            case ModelAnswered(usage=usage):
                return replace(
                    self,
                    usage=state.usage,
                    cost_usd=state.cost_usd,
                    context_used=usage.total_tokens,
                    window=(agent.context_window or 0) if agent else 0,
                    first=None,
                )
        return self

    def _decoding(self, now: _First) -> Standing:
        """Update the rate since the first token count, once enough time has passed."""
        if self.first is None:
            return replace(self, first=now)
        seconds = now.at_s - self.first.at_s
        if seconds < _LEAST_S:
            return self
        return replace(self, rate=(now.tokens - self.first.tokens) / seconds)


def _is_local(agent: Agent | None) -> bool:
    return agent is not None and agent.client.info.provider in ("local", "embedded")
