"""What the clients of all wires share: one request, one answer read to its end, no retries."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, Protocol

import httpx2

from agentcli.errors import BadRequestError
from agentcli.llm.catalog import Endpoint
from agentcli.llm.client import ChatRequest, StreamEvent, UsageDelta
from agentcli.llm.meter import Meter
from agentcli.llm.sdk_errors import Origin, broken_error, overflow
from agentcli.llm.tokens import TokenCount
from agentcli.llm.transport import DONE, Answer
from agentcli.llm.wire_cache import Encoded, WireCache
from agentcli.messages import Message

LONG = 20_000
"""Tokens of a conversation from which on an OpenAI model's own vocabulary is loaded for it."""
_MALFORMED = (TypeError, AttributeError, ValueError, LookupError, ArithmeticError, RecursionError)


class Reader(Protocol):
    """Turns one wire's answer into our events."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, whatever may still follow."""
        ...

    @property
    def done(self) -> bool:
        """Whether the wire's last event was seen."""
        ...

    def event(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """The events of one event of the stream."""
        ...

    def body(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """The events of an answer that came in one piece."""
        ...

    def end(self, *, marked: bool) -> Iterator[StreamEvent]:
        """What closes the answer; ``marked`` tells that ``[DONE]`` or a whole body was seen.

        Raises:
            StreamBrokenError: the answer is not whole.
        """
        ...


class RemoteModel(ABC):
    """A model at an endpoint; ``stream`` and ``count_tokens`` as in ``LLMClient``."""

    def __init__(self, endpoint: Endpoint, cache: WireCache) -> None:
        self.info = endpoint.info
        self._streaming = endpoint.streaming
        self._origin = Origin(
            endpoint.info.provider,
            endpoint.info.id,
            endpoint.base_url,
            endpoint.key_name,
            endpoint.api_key,
        )
        self._cache = cache
        self._meter = Meter(endpoint.info.id)
        self._tools = b"", 0.0
        self._sharpening: asyncio.Task[None] | None = None

    @abstractmethod
    def _body(self, request: ChatRequest, history: Encoded) -> bytes:
        """The request's JSON."""

    @abstractmethod
    async def _post(self, body: bytes) -> httpx2.Response:
        """Send it; the head of a successful answer, or an error of ``errors``."""

    @abstractmethod
    def _reader(self, used_ids: Collection[str]) -> Reader:
        """A reader for one answer; ``used_ids`` are the call ids of the history."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection."""

    async def _counted(self, request: ChatRequest, history: Encoded) -> int | None:
        """The provider's own count; None where it offers none."""
        return None

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """The answer as it comes, ending with ``Finished``. Raises ``ProviderError``."""
        history = self._cache.messages(request.conversation, request.messages)
        body = self._body(request, history)
        try:
            response = await self._post(body)
        except BadRequestError as error:
            tokens = self._meter.request(self._size(request, history))
            raise overflow(error, tokens, self.info) from error
        answer = Answer(response, self._origin)
        try:
            reader = self._reader(history.call_ids)
            marked = is_json = await answer.is_json()
            if is_json:
                for event in self._read(reader.body(await answer.body())):
                    yield self._noted(event, request, history)
            else:
                async for name, data in answer.events():
                    marked = marked or name == DONE
                    for event in self._read(reader.event(data)):
                        yield self._noted(event, request, history)
                    answer.whole = answer.whole or reader.whole
                    answer.done = answer.done or reader.done
            for event in reader.end(marked=marked):
                yield event
        finally:
            await answer.aclose()

    def _read(self, events: Iterator[StreamEvent]) -> list[StreamEvent]:
        """What a piece of an answer says; one of a form that no server should send breaks it."""
        try:
            return list(events)
        except _MALFORMED as error:
            raise broken_error(self._origin, f"it is malformed ({error})") from error

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """See ``LLMClient.count_tokens``."""
        history = self._cache.messages(request.conversation, request.messages)
        if exact:
            if (counted := await self._counted(request, history)) is not None:
                self._meter.report(self._size(request, history), counted)
                return TokenCount(counted, exact=True)
            await self._sharpen()
        elif self._meter.sharper and self._size(request, history) > LONG:
            self._sharpen()
        return TokenCount(self._meter.request(self._size(request, history)), exact=False)

    def size_of(self, message: Message) -> int:
        """See ``LLMClient.size_of``."""
        return self._meter.corrected(self._meter.message(message))

    def _sharpen(self) -> asyncio.Task[None]:
        """Load the model's vocabulary, if there is one, beside everything else."""

        async def sharpen() -> None:
            if self._meter.sharper:
                await asyncio.to_thread(self._meter.sharpen)
                await self._cache.measure(self._meter.message)
                self._tools = b"", 0.0

        if self._sharpening is None:
            self._sharpening = asyncio.create_task(sharpen())
        return self._sharpening

    def _size(self, request: ChatRequest, history: Encoded) -> float:
        """The request's tokens as they are counted here."""
        wire = self._cache.tools(request.tools) if request.tools else b""
        if self._tools[0] is not wire:
            self._tools = wire, self._meter.text(wire.decode())
        return self._tools[1] + sum(history.sizes)

    def _noted(self, event: StreamEvent, request: ChatRequest, history: Encoded) -> StreamEvent:
        if isinstance(event, UsageDelta) and event.usage.input_tokens > 0:
            self._meter.report(self._size(request, history), event.usage.input_tokens)
        return event


class CallIds:
    """Ids of one answer's calls: the server's, or new ones where those are missing or taken."""

    def __init__(self, used: Collection[str]) -> None:
        self._used = used
        self._given: set[str] = set()

    def free(self, wire_id: str) -> str:
        """An id that no other call of the conversation has."""
        if not wire_id or wire_id in self._used or wire_id in self._given:
            wire_id = f"call_{uuid.uuid4().hex[:24]}"
        self._given.add(wire_id)
        return wire_id
