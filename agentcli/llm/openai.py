"""OpenAI Chat Completions, and every compatible server, through the official SDK.

The SDK sends requests and classifies errors; its retries are off. Bodies are joined from messages
that are encoded only once. Answers are read as plain JSON events, because compatible servers
deviate from the SDK's types in many small ways (see ``openai_answer``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Unpack, cast

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream

from agentcli.llm.catalog import CHAT, OPENAI_URL, Endpoint, Options
from agentcli.llm.client import ChatRequest, ModelInfo
from agentcli.llm.openai_answer import AnswerReader
from agentcli.llm.openai_request import images_wire, message_wire, sampling_wire, tools_wire
from agentcli.llm.remote import RemoteModel
from agentcli.llm.sdk_errors import Origin, connection_error, status_error
from agentcli.llm.transport import bodiless_error, http_client
from agentcli.llm.wire_cache import Encoded, WireCache, dumps


class OpenAIChat(RemoteModel):
    """A model behind ``/chat/completions``."""

    def __init__(
        self,
        info: ModelInfo,
        api_key: str,
        base_url: str = OPENAI_URL,
        **options: Unpack[Options],
    ) -> None:
        endpoint = Endpoint(info, base_url, CHAT, api_key, **options)
        provider, field = info.provider, endpoint.reasoning_field
        cache = WireCache(
            lambda m: dumps(message_wire(m, provider, field)),
            tools_wire,
            lambda results: list(map(dumps, images_wire(results, info.id))),
        )
        super().__init__(endpoint, cache)
        own = endpoint.base_url.startswith(OPENAI_URL)
        self._max_tokens_field = "max_completion_tokens" if own else "max_tokens"
        self._client = sdk_client(endpoint)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _body(self, request: ChatRequest, history: Encoded) -> bytes:
        options: dict[str, Any] = {"model": self.info.id, "stream": self._streaming}
        options |= sampling_wire(request.sampling, self._max_tokens_field)
        if self._streaming:
            options["stream_options"] = {"include_usage": True}
        parts = [dumps(options)[:-1]]
        if request.tools:
            parts.append(b',"tools":' + self._cache.tools(request.tools))
        return b"".join([*parts, b',"messages":[', history.joined, b"]}"])

    async def _post(self, body: bytes) -> httpx2.Response:
        return await post(self._client, "/chat/completions", body, self._origin)

    def _reader(self, used_ids: Collection[str]) -> AnswerReader:
        return AnswerReader(self._origin, used_ids)


def connect(endpoint: Endpoint) -> OpenAIChat:
    """Create a client; called by the registry."""
    return OpenAIChat(endpoint.info, endpoint.api_key, endpoint.base_url, **endpoint.options())


def sdk_client(endpoint: Endpoint) -> AsyncOpenAI:
    """The SDK's client on our own HTTP client, without retries."""
    http = http_client(endpoint.base_url, endpoint.timeout_s)
    client = AsyncOpenAI(
        api_key=endpoint.api_key or "none",  # the SDK requires one
        base_url=endpoint.base_url,
        default_headers=endpoint.headers,
        max_retries=0,
        timeout=http.timeout,
        http_client=http,
    )
    if not endpoint.base_url.startswith(OPENAI_URL):
        # The SDK reads them from the environment, but they concern only OpenAI itself.
        client.organization = client.project = None
    return client


async def post(client: AsyncOpenAI, path: str, body: bytes, origin: Origin) -> httpx2.Response:
    """Send one request and return once the head of a successful answer has arrived.

    Raises:
        ProviderError: the server answered with an error status, or not at all.
    """
    try:
        response = await client.post(
            path, content=body, cast_to=httpx2.Response, stream=True, stream_cls=AsyncStream
        )
        return cast(httpx2.Response, response)  # cast_to takes precedence over stream_cls
    except APIStatusError as error:
        headers = error.response.headers
        raise status_error(origin, error.status_code, error.body, headers) from error
    except APIConnectionError as error:
        raise connection_error(origin, error.__cause__) from error
    except httpx2.RequestError as error:  # the body of an error response broke off
        raise bodiless_error(origin, error) from error
