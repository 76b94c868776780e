"""Detects a run that goes in circles: the same calls fail repeatedly with the same message."""

from __future__ import annotations

from agentcli.agent.state import AgentState
from agentcli.messages import Message, Outcome, ToolResult

REPEATS = 3


def stagnant(state: AgentState, repeats: int = REPEATS) -> bool:
    """Whether the last ``repeats`` steps made the same calls and all of them ended in errors.

    Only errors count: a command that gives the same result each time may be waiting for something.
    """
    before = repeats - 1
    if state.step_decision is None or state.used.steps < before:
        return False
    records = state.records.since(len(state.records) - before)
    recent = [(record.decision, record.results) for record in records]
    steps = [*recent, (state.step_decision, state.step_results)]
    signs = {_sign(decision, results) for decision, results in steps}
    return len(signs) == 1 and None not in signs


def _sign(decision: Message | None, results: tuple[ToolResult, ...]) -> object:
    if decision is None or not results or any(r.outcome is not Outcome.ERROR for r in results):
        return None
    calls = tuple((call.name, call.arguments) for call in decision.calls)
    return calls, tuple(result.content for result in results)
