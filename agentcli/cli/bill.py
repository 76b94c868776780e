"""What the model calls of one run cost."""

from __future__ import annotations

import asyncio

from agentcli.agent.events import AnswerRejected, Event, ModelAnswered
from agentcli.llm.client import ModelInfo
from agentcli.llm.registry import price_of
from agentcli.messages import Usage


class Bill:
    """Adds up the calls of each model; answers that could not be used are paid for as well."""

    def __init__(self) -> None:
        self._calls: list[tuple[ModelInfo, Usage]] = []

    def add(self, info: ModelInfo, event: Event) -> None:
        """Count the event if it stands for a call, made of the model ``info``."""
        if isinstance(event, ModelAnswered | AnswerRejected):
            self._calls.append((info, event.usage))

    async def total_usd(self) -> float | None:
        """US dollars, or None where a price is not known."""
        # The price tables take a quarter of a second to load.
        return await asyncio.to_thread(self._total)

    def _total(self) -> float | None:
        prices = {info.id: price_of(info) for info, _ in self._calls}
        total = 0.0
        for info, usage in self._calls:
            cost = prices[info.id](usage)
            if cost is None:
                return None
            total += cost
        return total if self._calls else None
