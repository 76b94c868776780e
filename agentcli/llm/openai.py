"""OpenAI Chat Completions, and every server that speaks it, through the official SDK.

The SDK builds and sends requests and names the errors; its retries are off. Bodies are joined from
messages encoded once each, and answers are read as plain JSON events, because compatible servers
leave the SDK's types in many small ways (see ``openai_answer``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import cast

import httpx2
import openai

from agentcli.errors import BadRequestError
from agentcli.llm.catalog import OPENAI_URL, Endpoint
from agentcli.llm.client import ChatRequest, ModelInfo, StreamEvent, UsageDelta
from agentcli.llm.openai_answer import AnswerReader
from agentcli.llm.openai_request import message_wire, sampling_wire, tools_wire
from agentcli.llm.sdk_errors import Origin, connection_error, overflow, status_error
from agentcli.llm.transport import DONE, Answer, http_client
from agentcli.llm.wire_cache import Encoded, WireCache, dumps


class OpenAIChat:
    """A model behind ``/chat/completions``.

    ``timeout_s`` bounds the silence between two reads. ``streaming=False`` asks for whole answers,
    which fold to the same. ``max_tokens_field`` and ``reasoning_field`` name what servers call
    differently: the token limit, and the field in which a server wants its reasoning back.
    """

    def __init__(
        self,
        info: ModelInfo,
        api_key: str,
        base_url: str = OPENAI_URL,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        streaming: bool = True,
        key_name: str = "",
        max_tokens_field: str = "max_completion_tokens",
        reasoning_field: str = "",
    ) -> None:
        self.info = info
        self._origin = Origin(info.provider, info.id, base_url, key_name, api_key)
        self._streaming = streaming
        self._max_tokens_field = max_tokens_field
        self._client = sdk_client(api_key, base_url, headers, timeout_s)
        self._cache = WireCache(lambda m: dumps(message_wire(m, reasoning_field)), tools_wire)
        self._bytes_per_token = 4.0

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """The answer as it comes, ending with ``Finished``. Raises ``ProviderError``."""
        history = self._cache.messages(request.conversation, request.messages)
        body = self._body(request, history)
        try:
            response = await post(self._client, "/chat/completions", body, self._origin)
        except BadRequestError as error:
            raise overflow(error, len(body) / self._bytes_per_token, self.info) from error
        answer = Answer(response, self._origin)
        try:
            reader = AnswerReader(self._origin, history.call_ids)
            marked = answer.is_json
            if answer.is_json:
                for event in reader.chunk(await answer.body()):
                    yield self._noted(event, body)
            else:
                async for name, chunk in answer.events():
                    marked = marked or name == DONE
                    for event in reader.chunk(chunk):
                        yield self._noted(event, body)
                    answer.whole = marked or bool(reader.finish)
            for event in reader.end(marked=marked):
                yield event
        finally:
            await answer.aclose()

    async def count_tokens(self, request: ChatRequest) -> int:
        """An estimate from the size of the request, calibrated by the answers so far."""
        history = self._cache.messages(request.conversation, request.messages)
        return max(1, round(len(self._body(request, history)) / self._bytes_per_token))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _body(self, request: ChatRequest, history: Encoded) -> bytes:
        options = {"model": self.info.id, "stream": self._streaming}
        options |= sampling_wire(request.sampling, self._max_tokens_field)
        if self._streaming:
            options["stream_options"] = {"include_usage": True}
        parts = [dumps(options)[:-1]]
        if request.tools:
            parts.append(b',"tools":' + self._cache.tools(request.tools))
        return b"".join([*parts, b',"messages":[', b",".join(history.wires), b"]}"])

    def _noted(self, event: StreamEvent, body: bytes) -> StreamEvent:
        if isinstance(event, UsageDelta) and event.usage.input_tokens > 0:
            self._bytes_per_token = len(body) / event.usage.input_tokens
        return event


def sdk_client(
    api_key: str, base_url: str, headers: Mapping[str, str] | None, timeout_s: float
) -> openai.AsyncOpenAI:
    """The SDK's client on one connection of our own, without its retries."""
    client = openai.AsyncOpenAI(
        api_key=api_key or "none",  # the SDK wants one; servers without keys ignore it
        base_url=base_url,
        default_headers=headers,
        max_retries=0,
        timeout=httpx2.Timeout(timeout_s, connect=10.0),
        http_client=http_client(base_url, timeout_s),
    )
    if not base_url.startswith(OPENAI_URL):
        # Read from the environment by the SDK; they are OpenAI's alone.
        client.organization = client.project = None
    return client


async def post(
    client: openai.AsyncOpenAI, path: str, body: bytes, origin: Origin
) -> httpx2.Response:
    """Send one request; returns when the head of a successful answer is there.

    Raises:
        ProviderError: an error status, or no answer.
    """
    try:
        response = await client.post(
            path, content=body, cast_to=httpx2.Response, stream=True, stream_cls=openai.AsyncStream
        )
        return cast(httpx2.Response, response)  # cast_to goes before stream_cls
    except openai.APIStatusError as error:
        headers = error.response.headers
        raise status_error(origin, error.status_code, error.body, headers) from error
    except openai.APIConnectionError as error:
        raise connection_error(origin, error.__cause__) from error


def connect(endpoint: Endpoint) -> OpenAIChat:
    """The client of an endpoint, as the registry asks for it."""
    own = endpoint.base_url.startswith(OPENAI_URL)
    return OpenAIChat(
        endpoint.info,
        endpoint.api_key,
        endpoint.base_url,
        headers=endpoint.headers,
        timeout_s=endpoint.timeout_s,
        streaming=endpoint.streaming,
        key_name=endpoint.key_name,
        max_tokens_field="max_completion_tokens" if own else "max_tokens",
        reasoning_field=endpoint.reasoning_field,
    )
