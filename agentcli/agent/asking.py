"""Gets one whole answer from a model.

The budget is checked first. Failed attempts and the pauses after them are emitted as events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from agentcli.agent.budget import Price, RunLimits, answer_room
from agentcli.agent.events import Delta, RetryScheduled, Stage, StreamReset, Warned
from agentcli.agent.recovery import RetryConfig, delay_s
from agentcli.agent.state import AgentState
from agentcli.errors import DeadlineError, Place, ProviderError, RetryExhaustedError
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    LLMClient,
    ModelInfo,
    StreamEvent,
    StreamFold,
    UsageDelta,
)
from agentcli.llm.tokens import estimate, message_tokens
from agentcli.messages import Usage

_PRICES_WAIT_S = 0.1
"""Loading the price tables is delayed by this much, so that the first request goes out first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, the seconds to its first piece and to its end, and its cost."""

    response: ChatResponse
    first_token_s: float
    duration_s: float
    cost_usd: float | None


class Asking:
    """Asks models. ``emit`` records and shows an event; ``price_of`` may load tables and block."""

    def __init__(
        self,
        emit: Callable[..., Awaitable[None]],
        retry: RetryConfig,
        limits: RunLimits,
        price_of: Callable[[ModelInfo], Price],
    ) -> None:
        self._emit = emit
        self._retry = retry
        self._limits = limits
        self._price_of = price_of
        self._prices: dict[ModelInfo, asyncio.Task[Price]] = {}
        self._doubted: set[str] = set()

    async def ask(
        self, client: LLMClient, request: ChatRequest, step: int, state: AgentState
    ) -> Answer:
        """Ask for an answer, retrying as the kind of error allows.

        Raises:
            Stopped: the request would exceed a budget and was not sent.
            ProviderError: the last attempt's error, with its place.
        """
        if self._limits.counts_tokens:
            request, prompt_tokens = await self.fitted(client, request, state)
        else:
            prompt_tokens = 0
            self._load_price(client.info)
        attempt = 1
        while True:
            fold = StreamFold()
            try:
                first_s, duration_s = await self._stream(client, request, step, fold)
                response = fold.response()
            except ProviderError as error:
                error.place = Place(step, Stage.DECIDE.value, attempt)
                pause_s = delay_s(self._retry, error, attempt)
                if pause_s is None:
                    raise exhausted(error, attempt) from error
                if fold.begun:
                    await self._emit(StreamReset(step, error.message))
                usage = fold.usage
                cost = await self.cost(client.info, usage) if usage.total_tokens else None
                await self._emit(
                    RetryScheduled(
                        step,
                        Stage.DECIDE,
                        attempt,
                        pause_s,
                        error.message,
                        usage=usage,
                        cost_usd=cost,
                    )
                )
                await asyncio.sleep(pause_s)
                attempt += 1
                continue
            if prompt_tokens and not response.usage.total_tokens:
                response = replace(response, usage=_estimate(response, prompt_tokens))
                return Answer(response, first_s, duration_s, None)
            cost = await self.cost(client.info, response.usage)
            return Answer(response, first_s, duration_s, cost)

    async def _stream(
        self, client: LLMClient, request: ChatRequest, step: int, fold: StreamFold
    ) -> tuple[float, float]:
        """Fold one attempt; return the seconds to its first piece and to its end."""
        started = time.monotonic()
        first_s: float | None = None
        provider = client.info.provider
        async with (
            _Patience(provider, self._limits.silence_s) as patience,
            aclosing(client.stream(request)) as deltas,  # type: ignore[type-var]
        ):
            while (delta := await patience.next(deltas)) is not None:
                if first_s is None:
                    first_s = time.monotonic() - started
                fold.add(delta)
                await self._emit(Delta(step, delta))
                if isinstance(delta, UsageDelta) and delta.doubt:
                    await self._doubt(provider, delta.doubt)
        duration_s = time.monotonic() - started
        return duration_s if first_s is None else first_s, duration_s

    async def _doubt(self, provider: str, what: str) -> None:
        if provider not in self._doubted:
            self._doubted.add(provider)
            counts = f"{provider} reports impossible token counts ({what})"
            await self._emit(Warned(f"{counts}; they are ignored, and the cost is not known"))

    async def fitted(
        self, client: LLMClient, request: ChatRequest, state: AgentState
    ) -> tuple[ChatRequest, int]:
        """Bound the request's answer by the budgets; also return the tokens of its prompt.

        Raises:
            Stopped: the prompt alone would exceed a budget.
        """
        tokens = (await client.count_tokens(request)).tokens
        price = await asyncio.shield(self._load_price(client.info, wait_s=0.0))
        room = answer_room(self._limits, state, tokens, price)
        wanted = request.sampling.max_tokens
        if room is not None and (wanted is None or wanted > room):
            sampling = replace(request.sampling, max_tokens=room)
            request = replace(request, sampling=sampling)
        return request, tokens

    def _load_price(self, info: ModelInfo, wait_s: float = _PRICES_WAIT_S) -> asyncio.Task[Price]:
        async def load() -> Price:
            if not info.priced_by:
                return self._price_of(info)  # nothing to load
            await asyncio.sleep(wait_s)
            return await asyncio.to_thread(self._price_of, info)

        if info not in self._prices:
            self._prices[info] = asyncio.create_task(load())
        return self._prices[info]

    async def cost(self, info: ModelInfo, usage: Usage) -> float | None:
        """The cost in US dollars; None if the price or the usage is not known."""
        price = await asyncio.shield(self._load_price(info))
        return price(usage) if usage.total_tokens else None


class _Patience:
    """Limits the wait for each piece of an answer to ``limit_s`` seconds (None: no limit).

    All pieces share one timer, because a fast model sends hundreds of them a second.

    Raises:
        DeadlineError: on exit, if a piece did not arrive in time.
    """

    def __init__(self, provider: str, limit_s: float | None) -> None:
        self._provider = provider
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, deltas: AsyncIterator[StreamEvent]) -> StreamEvent | None:
        """The next piece; None after the last."""
        self._since = self._loop.time()
        try:
            return await anext(deltas, None)
        finally:
            self._since = None

    async def __aenter__(self) -> _Patience:
        await self._scope.__aenter__()
        self._look_again(self._loop.time())
        return self

    async def __aexit__(self, *exc: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._scope.__aexit__(*exc)
        except TimeoutError as error:
            raise DeadlineError(
                f"{self._provider} sent nothing of its answer for {self._limit_s:g} s",
                hint="Raise request_timeout_s or try again",
                provider=self._provider,
            ) from error

    def _look_again(self, since: float) -> None:
        if self._limit_s is not None:
            self._timer = self._loop.call_at(since + self._limit_s, self._look)

    def _look(self) -> None:
        now, since = self._loop.time(), self._since
        if since is not None and self._limit_s is not None and now >= since + self._limit_s:
            self._scope.reschedule(now)
        else:
            self._look_again(now if since is None else since)


def exhausted(error: ProviderError, attempts: int) -> ProviderError:
    """The final error; if there was more than one attempt, it says how many."""
    if attempts == 1:
        return error
    last = RetryExhaustedError(attempts, error)
    last.place = error.place
    return last


def _estimate(response: ChatResponse, prompt_tokens: int) -> Usage:
    """Estimate usage that the provider does not report, so that a token budget still holds."""
    written = round(message_tokens(response.message, estimate))
    return Usage(input_tokens=prompt_tokens, output_tokens=written)
