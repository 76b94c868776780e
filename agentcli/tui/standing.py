"""Where a conversation stands, in the few numbers that a status line has room for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agentcli.agent.events import Event, ModeChanged, ModelAnswered, ModelChanged, SessionStarted
from agentcli.agent.state import AgentState
from agentcli.messages import Usage

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent


@dataclass(frozen=True, slots=True)
class Standing:
    """What the line says. ``context_used`` and ``window`` in tokens, 0 where not known;
    ``rate`` in tokens a second, of local models; ``cost_usd`` is None where not known."""

    model: str = ""
    mode: str = "ask"
    sandbox: str = ""
    usage: Usage = field(default_factory=Usage)
    context_used: int = 0
    window: int = 0
    cost_usd: float | None = 0.0
    rate: float = 0.0

    def after(self, event: Event, state: AgentState, agent: Agent | None) -> Standing:
        """Where it stands after an event of this agent."""
        match event:
            case SessionStarted(model=model, mode=mode, sandbox=sandbox):
                return replace(self, model=model, mode=mode, sandbox=sandbox)
            case ModelChanged(model=model):
                return replace(self, model=model, rate=0.0)
            case ModeChanged(mode=mode):
                return replace(self, mode=mode)
            case ModelAnswered(usage=usage):
                seconds = event.duration_s - event.first_token_s
                local = agent is not None and agent.client.info.provider in ("local", "embedded")
                return replace(
                    self,
                    usage=state.usage,
                    cost_usd=state.cost_usd,
                    context_used=usage.total_tokens,
                    window=(agent.context_window or 0) if agent else 0,
                    rate=usage.output_tokens / seconds if local and seconds > 0.01 else 0.0,
                )
        return self
