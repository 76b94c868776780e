"""Soft caps: warnings that a run has used a lot of something. Each warns once and stops nothing.

The caps on tokens, dollars, seconds and steps are 80 % of the hard limits. The others count signs
of a run that makes no progress: many calls, failed checks of one tool, failed edits of one file.
"""

from __future__ import annotations

import json
import posixpath
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agentcli.agent.budget import RunLimits
from agentcli.agent.events import SoftCapReached
from agentcli.agent.state import AgentState
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolKind, ToolSpec


@dataclass(frozen=True, slots=True)
class Caps:
    """``share`` is a fraction of each hard limit; the others are counts within a run."""

    share: float = 0.8
    tool_calls: int = 40
    failed_checks: int = 3
    """Of one tool, such as the build."""
    failed_edits: int = 3
    """Of one file."""


class SoftCaps:
    """Counts over one run. ``spec_of`` maps a tool's name to its specification, if known."""

    def __init__(
        self, caps: Caps, limits: RunLimits, spec_of: Callable[[str], ToolSpec | None]
    ) -> None:
        self._caps = caps
        self._limits = limits
        self._spec_of = spec_of
        self.begin()

    def begin(self) -> None:
        """Reset the counts and warnings for a new run."""
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._failed_checks: Counter[str] = Counter()
        self._failed_edits: Counter[str] = Counter()

    def after_step(self, state: AgentState) -> list[SoftCapReached]:
        """The caps that the last step has reached."""
        calls = {call.id: call for call in state.step_decision.calls} if state.step_decision else {}
        for result in state.step_results:
            if (call := calls.get(result.call_id)) is not None:
                self._count(call, result)
        reached: list[SoftCapReached] = []
        for cap, used, limit in self._uses(state):
            if used >= limit and cap not in self._told:
                self._told.add(cap)
                reached.append(SoftCapReached(state.running_step, cap, used, limit))
        return reached

    def _count(self, call: ToolCall, result: ToolResult) -> None:
        spec = self._spec_of(call.name)
        if spec is None:
            return
        if spec.kind is ToolKind.CHECK and result.outcome is Outcome.FAILED:
            self._failed_checks[call.name] += 1
        if spec.kind is ToolKind.EDIT and result.outcome in (Outcome.ERROR, Outcome.FAILED):
            self._failed_edits.update(_paths(call, spec))

    def _uses(self, state: AgentState) -> Iterator[tuple[str, float, float]]:
        """Yield (cap, used, limit) for each cap."""
        caps, limits, used = self._caps, self._limits, state.used
        yield "tool_calls", used.tool_calls, caps.tool_calls
        for name, count in self._failed_checks.items():
            yield f"failed_checks {name}", count, caps.failed_checks
        for path, count in self._failed_edits.items():
            yield f"failed_edits {path}", count, caps.failed_edits
        shares: list[tuple[str, float | None, float | None]] = [
            ("steps", used.steps + 1, limits.max_steps),
            ("tokens", used.usage.total_tokens, limits.tokens),
            ("cost_usd", used.cost_usd, limits.cost_usd),
            ("time_s", round(time.monotonic() - self._started, 1), limits.time_s),
            ("tool_calls_of_limit", used.tool_calls, limits.tool_calls),
        ]
        for cap, spent, limit in shares:
            if spent is not None and limit is not None:
                yield cap, spent, limit * caps.share


def _paths(call: ToolCall, spec: ToolSpec) -> list[str]:
    try:
        arguments = json.loads(call.arguments)
        return [posixpath.normpath(str(arguments[name])) for name in spec.path_arguments]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
