"""The base of all remote clients: one request, one answer read to its end, no retries."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import replace
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
from agentcli.messages import Message, without_result_images

LONG = 20_000
"""Conversations above this many tokens are counted with the model's own vocabulary."""
_MALFORMED = (TypeError, AttributeError, ValueError, LookupError, ArithmeticError, RecursionError)


class Reader(Protocol):
    """Turns an API's answer into stream events."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, even if more events may follow."""
        ...

    @property
    def done(self) -> bool:
        """Whether the last event has been seen."""
        ...

    def event(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn one server-sent event into stream events."""
        ...

    def body(self, data: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Turn an answer that came in one piece into stream events."""
        ...

    def end(self, *, marked: bool) -> Iterator[StreamEvent]:
        """Close the answer; ``marked`` means that ``[DONE]`` or a whole body has been seen.

        Raises:
            StreamBrokenError: the answer is incomplete.
        """
        ...


class RemoteModel(ABC):
    """A model behind an HTTP endpoint; implements ``LLMClient``."""

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
        """Encode the request as JSON."""

    @abstractmethod
    async def _post(self, body: bytes) -> httpx2.Response:
        """Send the body and return a successful response, its body unread.

        Raises:
            ProviderError: the server answered with an error status, or not at all.
        """

    @abstractmethod
    def _reader(self, used_ids: Collection[str]) -> Reader:
        """A reader for one answer; ``used_ids`` are the call ids already in the history."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection."""

    async def _counted(self, request: ChatRequest, history: Encoded) -> int | None:
        """The provider's own token count, or None if it offers none."""
        return None

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """See ``LLMClient.stream``."""
        request = self._seen(request)
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
        """Collect events; malformed data of a server raises StreamBrokenError."""
        try:
            return list(events)
        except _MALFORMED as error:
            raise broken_error(self._origin, f"it is malformed ({error})") from error

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """See ``LLMClient.count_tokens``."""
        request = self._seen(request)
        history = self._cache.messages(request.conversation, request.messages)
        if exact:
            if (counted := await self._counted(request, history)) is not None:
                self._meter.report(self._size(request, history), counted)
                return TokenCount(counted, exact=True)
            await asyncio.shield(self._sharpen())  # later calls wait for it, too
        elif self._meter.sharper and self._size(request, history) > LONG:
            self._sharpen()
        return TokenCount(self._meter.request(self._size(request, history)), exact=False)

    def size_of(self, message: Message) -> int:
        """See ``LLMClient.size_of``."""
        (seen,) = self._seen(ChatRequest((message,))).messages
        return self._meter.corrected(self._meter.message(seen))

    def _seen(self, request: ChatRequest) -> ChatRequest:
        """The request without what the model does not accept."""
        if self.info.images:
            return request
        return replace(request, messages=without_result_images(request.messages))

    def _sharpen(self) -> asyncio.Task[None]:
        """Load the model's vocabulary, if there is one, in the background."""

        async def sharpen() -> None:
            if self._meter.sharper:
                await asyncio.to_thread(self._meter.sharpen)
                await self._cache.measure(self._meter.message)
                self._tools = b"", 0.0

        if self._sharpening is None:
            self._sharpening = asyncio.create_task(sharpen())
        return self._sharpening

    def _size(self, request: ChatRequest, history: Encoded) -> float:
        """The request's tokens by our own count, not calibrated."""
        wire = self._cache.tools(request.tools) if request.tools else b""
        if self._tools[0] is not wire:
            self._tools = wire, self._meter.text(wire.decode())
        return self._tools[1] + sum(history.sizes)

    def _noted(self, event: StreamEvent, request: ChatRequest, history: Encoded) -> StreamEvent:
        if isinstance(event, UsageDelta) and event.usage.input_tokens > 0:
            self._meter.report(self._size(request, history), event.usage.input_tokens)
        return event


class CallIds:
    """Assigns ids to one answer's calls: the server's own, or new ones if missing or taken."""

    def __init__(self, used: Collection[str]) -> None:
        self._used = used
        self._given: set[str] = set()

    def free(self, wire_id: str) -> str:
        """An id that is unique in the conversation."""
        if not wire_id or wire_id in self._used or wire_id in self._given:
            wire_id = f"call_{uuid.uuid4().hex[:24]}"
        self._given.add(wire_id)
        return wire_id
