"""Anthropic's Messages API through the official SDK; see ``openai`` for what the SDK does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Unpack, cast

import httpx2
from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic, AsyncStream

from agentcli.llm.anthropic_answer import AnswerReader
from agentcli.llm.anthropic_request import history_wire, marked, message_wire, tools_wire
from agentcli.llm.catalog import ANTHROPIC_URL, MESSAGES, Endpoint, Options
from agentcli.llm.client import ChatRequest, ModelInfo
from agentcli.llm.remote import RemoteModel
from agentcli.llm.sdk_errors import connection_error, status_error
from agentcli.llm.transport import Answer, bodiless_error, http_client
from agentcli.llm.wire_cache import Encoded, WireCache, dumps

MAX_TOKENS = 32_000
"""The output limit, which the API requires, if neither the request nor the model has one."""


class AnthropicMessages(RemoteModel):
    """A model behind ``/v1/messages``."""

    def __init__(
        self,
        info: ModelInfo,
        api_key: str,
        base_url: str = ANTHROPIC_URL,
        **options: Unpack[Options],
    ) -> None:
        endpoint = Endpoint(info, base_url, MESSAGES, api_key, **options)
        super().__init__(endpoint, WireCache(message_wire, tools_wire))
        headers = dict(endpoint.headers)
        if api_key and not base_url.startswith(ANTHROPIC_URL):
            headers.setdefault("x-api-key", api_key)  # compatible servers expect it here
        http = http_client(base_url, endpoint.timeout_s)
        self._client = AsyncAnthropic(
            api_key=api_key or "none",
            base_url=base_url.removesuffix("/v1"),
            default_headers=headers,
            max_retries=0,
            timeout=http.timeout,
            http_client=http,
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _body(self, request: ChatRequest, history: Encoded) -> bytes:
        sampling = request.sampling
        options: dict[str, Any] = {
            "stream": self._streaming,
            "max_tokens": sampling.max_tokens or self.info.max_output or MAX_TOKENS,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_sequences": list(sampling.stop) or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return self._prompt(request, history, given)

    def _prompt(self, request: ChatRequest, history: Encoded, given: Mapping[str, Any]) -> bytes:
        """The part of the body that is counted as the prompt, after the ``given`` fields."""
        system, messages = history_wire(history)
        parts = [dumps({"model": self.info.id, **given})[:-1]]
        if request.tools:
            tools = self._cache.tools(request.tools)
            # Without a system prompt, the tools are the stable prefix to cache.
            parts.append(b',"tools":' + (tools if system else marked(tools[:-1]) + b"]"))
        if system:
            parts.append(b',"system":' + system)
        return b"".join([*parts, b',"messages":', messages, b"}"])

    async def _counted(self, request: ChatRequest, history: Encoded) -> int | None:
        body = self._prompt(request, history, {})
        answer = Answer(await self._send("/v1/messages/count_tokens", body), self._origin)
        try:
            tokens = (await answer.body()).get("input_tokens")
        finally:
            await answer.aclose()
        return tokens if type(tokens) is int else None

    async def _post(self, body: bytes) -> httpx2.Response:
        return await self._send("/v1/messages", body)

    async def _send(self, path: str, body: bytes) -> httpx2.Response:
        try:
            response = await self._client.post(
                path,
                content=body,
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=AsyncStream,
            )
            return cast(httpx2.Response, response)  # cast_to takes precedence over stream_cls
        except APIStatusError as error:
            headers = error.response.headers
            raise status_error(self._origin, error.status_code, error.body, headers) from error
        except APIConnectionError as error:
            raise connection_error(self._origin, error.__cause__) from error
        except httpx2.RequestError as error:  # the body of an error response broke off
            raise bodiless_error(self._origin, error) from error

    def _reader(self, used_ids: Collection[str]) -> AnswerReader:
        return AnswerReader(self._origin, used_ids)


def connect(endpoint: Endpoint) -> AnthropicMessages:
    """Create a client; called by the registry."""
    return AnthropicMessages(
        endpoint.info, endpoint.api_key, endpoint.base_url, **endpoint.options()
    )
