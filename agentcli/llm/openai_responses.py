"""OpenAI's Responses API, which preserves a model's reasoning between two requests.

Nothing is stored at OpenAI: reasoning arrives encrypted, is kept in ``Thinking.data`` and goes
back with the history.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Unpack

import httpx2

from agentcli.llm.catalog import OPENAI_URL, RESPONSES, Endpoint, Options, reasons
from agentcli.llm.client import ChatRequest, ModelInfo
from agentcli.llm.openai import post, sdk_client
from agentcli.llm.remote import RemoteModel
from agentcli.llm.responses_answer import AnswerReader
from agentcli.llm.responses_request import message_wire, tools_wire
from agentcli.llm.wire_cache import Encoded, WireCache, dumps


class OpenAIResponses(RemoteModel):
    """A model behind ``/responses``."""

    def __init__(
        self,
        info: ModelInfo,
        api_key: str,
        base_url: str = OPENAI_URL,
        **options: Unpack[Options],
    ) -> None:
        endpoint = Endpoint(info, base_url, RESPONSES, api_key, **options)
        super().__init__(endpoint, WireCache(message_wire, tools_wire))
        self._client = sdk_client(endpoint)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _body(self, request: ChatRequest, history: Encoded) -> bytes:
        sampling = request.sampling
        options: dict[str, Any] = {
            "model": self.info.id,
            "stream": self._streaming,
            "store": False,
            "max_output_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "prompt_cache_key": request.conversation[:64] or None,
            # Other models reject it.
            "include": ["reasoning.encrypted_content"] if reasons(self.info.id) else None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        parts = [dumps(given)[:-1]]
        if request.tools:
            parts.append(b',"tools":' + self._cache.tools(request.tools))
        return b"".join([*parts, b',"input":[', history.joined, b"]}"])

    async def _post(self, body: bytes) -> httpx2.Response:
        return await post(self._client, "/responses", body, self._origin)

    def _reader(self, used_ids: Collection[str]) -> AnswerReader:
        return AnswerReader(self._origin, used_ids)


def connect(endpoint: Endpoint) -> OpenAIResponses:
    """Create a client; called by the registry."""
    return OpenAIResponses(endpoint.info, endpoint.api_key, endpoint.base_url, **endpoint.options())
