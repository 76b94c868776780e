"""Asks the critics after a step, and records their reviews and costs."""

from __future__ import annotations

from collections.abc import Sequence

from agentcli.agent.asking import Asking
from agentcli.agent.critics import Critic, Review, decisive
from agentcli.agent.events import ModelUsed, Reviewed, Warned
from agentcli.agent.stream import Stream
from agentcli.errors import JournalError


class Reviewing:
    """A failing critic causes a warning and counts as content: it must not hold up the work."""

    def __init__(self, critics: Sequence[Critic], stream: Stream, asking: Asking) -> None:
        self._critics = tuple(critics)
        self._stream = stream
        self._asking = asking

    def __bool__(self) -> bool:
        return bool(self._critics)

    async def review(self, step: int) -> Review:
        """Ask all critics; the first that wants the end or another step decides."""
        return decisive([await self._ask(step, critic) for critic in self._critics])

    async def _ask(self, step: int, critic: Critic) -> Review:
        name = type(critic).__name__
        try:
            review = await critic.review(self._stream.state)
        except JournalError:
            raise
        except Exception as error:
            await self._stream.emit(Warned(f"critic {name} failed: {error}"))
            return Review()
        if review.asked is not None:
            cost = await self._asking.cost(review.asked, review.usage)
            await self._stream.emit(ModelUsed(step, "critic", review.usage, cost))
        if review.reason:
            judgement = review.judgement.value
            await self._stream.emit(Reviewed(step, name, judgement, review.reason))
        return review
