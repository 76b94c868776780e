"""The one HTTP connection of a client, and the events of a streamed answer."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import anyio
import httpx2

from agentcli.errors import ConfigError, ProviderError
from agentcli.llm.sdk_errors import (
    MOVED,
    Origin,
    broken_error,
    connection_error,
    not_the_protocol,
    status_error,
    stream_error,
)
from agentcli.sandbox import offline

DONE = "[DONE]"
CONNECT_S = 10.0
REDIRECTS = 5
"""As often a request is sent on; more is a circle."""
TAIL_S = 5.0
"""How long to wait, in seconds, for the usage after an answer that is already whole."""
DRAIN_S = 0.2
"""How long to wait for the end of the body after the last event, to use the connection again."""

_FIELDS = ("d", "e", "i", "r", ":")
"""First letters of an event stream's lines; JSON begins with none of them."""

_FAULTS = (httpx2.TransportError, httpx2.DecodingError, ssl.SSLError, anyio.EndOfStream)


def http_client(base_url: str, timeout_s: float) -> httpx2.AsyncClient:
    """A client that keeps its connection for the whole run.

    ``timeout_s`` bounds the silence between two reads. Loading the certificate store costs about
    0.1 s, so plain http gets a context that trusts nobody: a redirect to https then fails. What
    runs on this machine is reached past any proxy of the environment.

    Raises:
        ConfigError: the process is offline (``sandbox/offline.py``), and this is another machine;
            or a proxy of the environment cannot be used.
    """
    if offline.active() and not offline.is_loopback(httpx2.URL(base_url).host):
        raise ConfigError(
            f"offline: {base_url} is not on this machine",
            hint="Use --model embedded, local:PATH or a server on this machine",
        )
    trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    loopback = offline.is_loopback(httpx2.URL(base_url).host)
    limits = httpx2.Limits(max_connections=64, max_keepalive_connections=8, keepalive_expiry=300)
    try:
        return httpx2.AsyncClient(
            verify=trust_nobody if base_url.startswith("http:") else True,
            timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S),
            limits=limits,
            follow_redirects=True,
            max_redirects=REDIRECTS,
            trust_env=not loopback,
            event_hooks={"response": [_note_head]},
        )
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise ConfigError(
            f"the proxy of the environment cannot be used: {str(error).rstrip('.')}",
            hint="Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; SOCKS needs the package socksio",
        ) from error


async def _note_head(response: httpx2.Response) -> None:
    response.request.extensions["head"] = response.status_code, response.headers
    if response.status_code in (301, 302, 303) and "location" in response.headers:
        # Followed, the request would become a GET, without the conversation.
        response.headers[MOVED] = response.headers.pop("location")


def bodiless_error(origin: Origin, error: httpx2.RequestError) -> ProviderError:
    """The error when an answer had a head and its body could not be read; the status is enough."""
    head = error.request.extensions.get("head")
    if head is None:
        return connection_error(origin, error)
    status, headers = head
    return status_error(origin, status, None, headers)


class Answer:
    """One HTTP answer: server-sent events or a JSON body, whichever the server chose."""

    def __init__(self, response: httpx2.Response, origin: Origin) -> None:
        self._response = response
        self._origin = origin
        self._pieces = response.aiter_text()
        self._start = ""
        self.whole = False
        """Set once the answer is complete: faults and silence are then forgiven."""
        self.done = False
        """Set once nothing at all can follow."""

    async def is_json(self) -> bool:
        """Whether it is one JSON body.

        Its first letter tells: servers name what they send wrongly, or not at all.

        Raises:
            StreamBrokenError: it broke off before, or is an HTML page.
        """
        try:
            while not self._start and (piece := await anext(self._pieces, None)) is not None:
                self._start = piece.lstrip("\ufeff \t\r\n")
        except _FAULTS as error:
            raise broken_error(self._origin, error) from error
        if self._start.startswith("<"):
            raise not_the_protocol(self._origin, "an HTML page")
        kind = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return not self._start.startswith(_FIELDS)
        return self._start.startswith(("{", "["))

    async def body(self) -> Mapping[str, Any]:
        """The JSON object of an answer that is not streamed.

        Raises:
            StreamBrokenError: it broke off, or is not a JSON object.
            ProviderError: it is an error object.
        """
        try:
            text = "".join([piece async for piece in self._text()])
        except _FAULTS as error:
            raise broken_error(self._origin, error) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise not_the_protocol(self._origin, "a body that is not JSON") from error
        return self._checked(value)

    async def events(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Event names and JSON objects up to the end; ``[DONE]`` comes as a name without data.

        Raises:
            StreamBrokenError: it broke off, or is no event stream.
            ProviderError: an error object came instead of an event.
        """
        seen = 0
        async for event in self._decoded():
            if self.done or not event.data.strip():
                continue
            seen += 1
            if event.data.lstrip().startswith(DONE):
                self.whole = self.done = True
                yield DONE, {}
                continue
            try:
                value = json.loads(event.data)
            except (ValueError, RecursionError) as error:
                if self.whole:
                    return  # the last event was cut off
                raise broken_error(self._origin, "an event is not JSON") from error
            yield event.event, self._checked(value)
        if not seen:
            raise not_the_protocol(self._origin, "no event stream")

    async def _decoded(self) -> AsyncIterator[httpx2.ServerSentEvent]:
        text = cast("httpx2.Response", _Text(self._response.request, self._text()))
        source = aiter(httpx2.EventSource(text, max_event_size=None))
        while True:
            try:
                # No yield inside the timeout: it would cancel whoever reads this generator.
                if not self.whole:
                    event = await anext(source, None)
                else:
                    async with asyncio.timeout(DRAIN_S if self.done else TAIL_S):
                        event = await anext(source, None)
            except (TimeoutError, *_FAULTS) as error:
                if self.whole:
                    return
                raise broken_error(self._origin, error) from error
            if event is None:
                return
            yield event

    async def _text(self) -> AsyncIterator[str]:
        yield self._start
        async for piece in self._pieces:
            yield piece
        yield "\n\n"  # which not every server puts after its last event

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()

    def _checked(self, value: object) -> Mapping[str, Any]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        if not isinstance(value, dict):
            raise not_the_protocol(self._origin, "JSON that is not an object")
        if value.get("error"):
            raise stream_error(self._origin, value)
        return value


class _Text:
    """What an ``EventSource`` wants of a response, for text of which some was read before."""

    headers = MappingProxyType({"content-type": "text/event-stream"})

    def __init__(self, request: httpx2.Request, pieces: AsyncIterator[str]) -> None:
        self.request = request
        self._pieces = pieces

    def aiter_text(self) -> AsyncIterator[str]:
        return self._pieces
