"""Critics review each step after it is done and may ask for another step or end the run.

All critics review every step. The first, in order, that does not say "continue" decides. A step
that a critic asks for counts like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agentcli.agent.checking import Check
from agentcli.agent.state import AgentState, Totals
from agentcli.llm.client import ChatRequest, LLMClient, ModelInfo, chat
from agentcli.messages import Message, Outcome, Role, Usage, system, user
from agentcli.text import truncate
from agentcli.tools.base import ToolContext

_JUDGED_CHARS = 60_000
"""How much of a conversation a critic is shown; the head and the tail are kept."""


class Judgement(StrEnum):
    """What a critic wants."""

    CONTINUE = "continue"
    RETRY = "retry"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Review:
    """A judgement and its reason. The model is told the reason for a retry.

    ``asked`` is the model that judged, if any, and ``usage`` what asking it took.
    """

    judgement: Judgement = Judgement.CONTINUE
    reason: str = ""
    usage: Usage = field(default_factory=Usage)
    asked: ModelInfo | None = None


class Critic(Protocol):
    """Judges the state after a step."""

    async def review(self, state: AgentState) -> Review:
        """Say what should happen next."""
        ...


def decisive(reviews: Sequence[Review]) -> Review:
    """The first review that does not say continue; without one, a review that does."""
    asking = (review for review in reviews if review.judgement is not Judgement.CONTINUE)
    return next(asking, Review())


def is_final(state: AgentState) -> bool:
    """Whether the step that just ended gave a final answer."""
    decided = state.step_decision
    return decided is not None and not decided.calls


class Rounds:
    """Counts something within a run; the next run begins at 0."""

    def __init__(self) -> None:
        self._run: Totals | None = None
        self._count = 0

    def so_far(self, state: AgentState) -> int:
        """The count of the run that ``state`` is of."""
        if state.before != self._run:
            self._run, self._count = state.before, 0
        return self._count

    def add(self) -> None:
        """Count one more."""
        self._count += 1


class ChecksPass:
    """Requires commands to succeed whenever the model says it is done.

    After ``rounds`` reports of failures it ends the run.
    """

    def __init__(
        self, check: Check, context: ToolContext, commands: Sequence[str], rounds: int = 3
    ) -> None:
        self._check = check
        self._context = context
        self._commands = tuple(commands)
        self._rounds = rounds
        self._failed = Rounds()

    async def review(self, state: AgentState) -> Review:
        """See ``Critic``."""
        if not is_final(state):
            return Review()
        outputs = [await self._check(self._context, command) for command in self._commands]
        reports = [output.content for output in outputs if output.outcome is not Outcome.OK]
        if not reports:
            return Review(reason="the checks pass")
        if self._failed.so_far(state) >= self._rounds:
            return Review(Judgement.STOP, f"{len(reports)} checks still fail:\n{reports[0]}")
        self._failed.add()
        return Review(Judgement.RETRY, "\n\n".join(["These checks fail:", *reports]))


class ModelCritic:
    """A model that judges whether a final answer does what the task asked for.

    ``prompt`` tells it how to judge, and to answer with a JSON object of judgement and reason. If
    its answer cannot be parsed, the run continues: a faulty critic must not hold up the work.
    After ``retries`` retries in a run it no longer asks for one.
    """

    def __init__(self, client: LLMClient, prompt: str, *, retries: int = 2) -> None:
        self._client = client
        self._prompt = prompt
        self._retries = retries
        self._retried = Rounds()

    async def review(self, state: AgentState) -> Review:
        """See ``Critic``; raises ``ProviderError`` if the model cannot be asked."""
        if not is_final(state):
            return Review()
        told = user(f"# Task\n\n{state.task}\n\n# Work\n\n{_transcript(tuple(state.history))}")
        response = await chat(self._client, ChatRequest((system(self._prompt), told)))
        judgement, reason = _verdict(response.message.text)
        if judgement is Judgement.RETRY:
            if self._retried.so_far(state) >= self._retries:
                judgement = Judgement.CONTINUE
            self._retried.add()
        return Review(judgement, reason, response.usage, self._client.info)

    async def aclose(self) -> None:
        """Close its model."""
        await self._client.aclose()


def _verdict(text: str) -> tuple[Judgement, str]:
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(found[0] if found else "")
        return Judgement(value["judgement"]), str(value["reason"])
    except (ValueError, KeyError, TypeError):
        return Judgement.CONTINUE, "the critic gave no verdict that could be read"


def _transcript(messages: Sequence[Message]) -> str:
    """The conversation as text for another model."""
    lines = []
    for message in messages:
        match message.role:
            case Role.SYSTEM:
                continue
            case Role.TOOL:
                result = message.result
                lines.append(f"[{result.name}: {result.outcome.value}]\n{result.content}")
            case role:
                lines.append(f"[{role.value}]\n{message.text}" if message.text else "")
                lines += [f"[calls {call.name}]\n{call.arguments}" for call in message.calls]
    return str(truncate("\n\n".join(filter(None, lines)), _JUDGED_CHARS))
