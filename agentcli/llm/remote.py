"""What the clients of all wires share: one request, one answer read to its end, no retries."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, Protocol

import httpx2

from agentcli.errors import BadRequestError
from agentcli.llm.catalog import Endpoint
from agentcli.llm.client import ChatRequest, StreamEvent, UsageDelta
from agentcli.llm.sdk_errors import Origin, broken_error, overflow
from agentcli.llm.transport import DONE, Answer
from agentcli.llm.wire_cache import Encoded, WireCache

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
        self._bytes_per_token = 4.0

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

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """The answer as it comes, ending with ``Finished``. Raises ``ProviderError``."""
        history = self._cache.messages(request.conversation, request.messages)
        body = self._body(request, history)
        try:
            response = await self._post(body)
        except BadRequestError as error:
            raise overflow(error, self._tokens(request, history), self.info) from error
        answer = Answer(response, self._origin)
        try:
            reader = self._reader(history.call_ids)
            marked = answer.is_json
            if answer.is_json:
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

    async def count_tokens(self, request: ChatRequest) -> int:
        """An estimate from the size of the request, calibrated by the answers so far."""
        history = self._cache.messages(request.conversation, request.messages)
        return max(1, round(self._tokens(request, history)))

    def _tokens(self, request: ChatRequest, history: Encoded) -> float:
        return self._size(request, history) / self._bytes_per_token

    def _size(self, request: ChatRequest, history: Encoded) -> int:
        tools = len(self._cache.tools(request.tools)) if request.tools else 0
        return tools + sum(history.sizes)

    def _noted(self, event: StreamEvent, request: ChatRequest, history: Encoded) -> StreamEvent:
        if isinstance(event, UsageDelta) and event.usage.input_tokens > 0:
            self._bytes_per_token = self._size(request, history) / event.usage.input_tokens
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
