"""Stop criteria, evaluated in order after each step; the first that is met ends the run.

Budgets are also checked before a step (``agentcli.agent.budget``), so that no step starts that
would exceed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentcli.agent.behaviour import Behaviour
from agentcli.agent.budget import RunLimits, all_used
from agentcli.agent.checking import Checking
from agentcli.agent.decision import Decision, Final
from agentcli.agent.events import StopReason
from agentcli.agent.stagnation import REPEATS, stagnant
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stop, stop_for
from agentcli.environments.base import Environment, Terminates
from agentcli.tools.base import STOP


@dataclass(frozen=True, slots=True)
class Moment:
    """The end of a step: what was decided in it, and the seconds since the run began."""

    state: AgentState
    decision: Decision
    elapsed_s: float


class Criterion(Protocol):
    """One condition for the end of a run."""

    async def met(self, moment: Moment) -> Stop | None:
        """The stop, or None to go on."""
        ...


@dataclass(frozen=True)
class FinalAnswer:
    """The model gave its final answer and the task's checks pass; failures go back to it."""

    checking: Checking

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        if not isinstance(moment.decision, Final):
            return None
        return await self.checking.finish(moment.decision.answer)


@dataclass(frozen=True)
class AgentCondition:
    """The agent's own ``should_stop`` gave a reason."""

    behaviour: Behaviour

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        reason = self.behaviour.should_stop(moment.state)
        return None if reason is None else stop_for(reason)


@dataclass(frozen=True)
class ToolSays:
    """A tool's result asks for the end of the run with one of ``reasons``."""

    reasons: frozenset[StopReason] = frozenset(
        (StopReason.DECLINED, StopReason.ENV_TERMINAL, StopReason.SUCCESS)
    )

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        for result in moment.state.step_results:
            said = result.data.get(STOP)
            if isinstance(said, str) and said in self.reasons:
                return stop_for(StopReason(said), answer=result.content)
        return None


@dataclass(frozen=True)
class EnvironmentTerminal:
    """The environment reports that it has ended."""

    environment: Environment

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        if isinstance(self.environment, Terminates) and (why := self.environment.terminal):
            return stop_for(StopReason.ENV_TERMINAL, detail=why)
        return None


@dataclass(frozen=True)
class MaxSteps:
    """The run has made ``steps`` steps."""

    steps: int

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        if moment.state.used.steps + 1 < self.steps:  # this step is not counted yet
            return None
        return stop_for(StopReason.BUDGET_STEPS, detail=all_used(self.steps, "step"))


@dataclass(frozen=True)
class MaxRuntime:
    """``seconds`` have passed at the end of a step; no step is cut short."""

    seconds: float

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        if moment.elapsed_s < self.seconds:
            return None
        return stop_for(StopReason.BUDGET_TIME, detail=f"{self.seconds:g} s are over")


@dataclass(frozen=True)
class Stagnation:
    """The model repeats the same faulty call ``repeats`` times in a row."""

    repeats: int = REPEATS

    async def met(self, moment: Moment) -> Stop | None:
        """See ``Criterion``."""
        if not stagnant(moment.state, self.repeats):
            return None
        detail = f"the same faulty call {self.repeats} times in a row"
        return stop_for(StopReason.STAGNATION, detail=detail)


@dataclass(frozen=True)
class Criteria:
    """Criteria, in the order in which they are evaluated."""

    order: tuple[Criterion, ...] = ()

    async def met(self, moment: Moment) -> Stop | None:
        """The stop of the first criterion that is met."""
        for criterion in self.order:
            if (stop := await criterion.met(moment)) is not None:
                return stop
        return None


def standard(
    checking: Checking,
    behaviour: Behaviour,
    limits: RunLimits,
    environment: Environment,
    more: Sequence[Criterion] = (),
) -> Criteria:
    """The criteria for every run, followed by ``more``."""
    return Criteria(
        (
            ToolSays(),
            FinalAnswer(checking),
            AgentCondition(behaviour),
            EnvironmentTerminal(environment),
            MaxSteps(limits.max_steps),
            *([MaxRuntime(limits.time_s)] if limits.time_s is not None else []),
            Stagnation(),
            *more,
        )
    )
