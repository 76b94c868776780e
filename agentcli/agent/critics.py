"""Critics look at a step after it is done, and may ask for another or for the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentcli.agent.state import AgentState


class Judgement(StrEnum):
    """What a critic wants."""

    CONTINUE = "continue"
    RETRY = "retry"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Review:
    """A judgement and why; the reason of a retry is told to the model."""

    judgement: Judgement = Judgement.CONTINUE
    reason: str = ""


class Critic(Protocol):
    """Judges the state after a step."""

    async def review(self, state: AgentState) -> Review:
        """What should happen next."""
        ...


async def review_all(critics: tuple[Critic, ...], state: AgentState) -> Review:
    """Ask every critic; the first that does not say continue, in their order, decides."""
    reviews = [await critic.review(state) for critic in critics]
    for review in reviews:
        if review.judgement is not Judgement.CONTINUE:
            return review
    return Review()
