"""Asks an OpenAI-compatible server which models it serves."""

from __future__ import annotations

import asyncio
import json

import httpx2

from agentcli.errors import DeadlineError, ModelNotFoundError
from agentcli.llm.catalog import Endpoint
from agentcli.llm.sdk_errors import Origin, connection_error, not_the_protocol, status_error
from agentcli.llm.transport import http_client

_MOST_BYTES = 1_000_000


async def served(endpoint: Endpoint, *, time_s: float = 2.0) -> list[str]:
    """The names of the server's models; it has ``time_s`` seconds for the whole answer.

    Raises:
        ProviderError: it does not answer in time, or not with a list of models.
        ConfigError: the environment's proxy cannot be used.
    """
    name, url = endpoint.info.provider, endpoint.base_url
    origin = Origin(name, endpoint.info.id, url, endpoint.key_name, endpoint.api_key)
    headers = dict(endpoint.headers)
    if endpoint.api_key:
        headers.setdefault("Authorization", f"Bearer {endpoint.api_key}")
    try:
        async with (
            asyncio.timeout(time_s),
            http_client(url, time_s) as client,
            client.stream("GET", f"{url}/models", headers=headers) as answer,
        ):
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise not_the_protocol(origin, "more than a list of models")
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise DeadlineError(
            f"{name} at {url} gave no answer within {time_s:g} s", provider=name
        ) from error
    except httpx2.RequestError as error:
        raise connection_error(origin, error) from error
    if answer.status_code == 404:
        usually = "" if "/v1" in url else "Check the base URL: it usually ends in /v1"
        raise ModelNotFoundError(
            f"{url}/models does not exist (404)", hint=usually or None, provider=name, status=404
        )
    if not answer.is_success:
        raise status_error(
            origin, answer.status_code, body.decode(errors="replace"), answer.headers
        )
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, LookupError, TypeError) as error:
        raise not_the_protocol(origin, "something other than a list of models") from error
