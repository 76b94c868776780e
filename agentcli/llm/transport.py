"""The HTTP client, and the events of a streamed answer."""

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
    quoted,
    status_error,
    stream_error,
)
from agentcli.sandbox import offline

DONE = "[DONE]"
CONNECT_S = 10.0
REDIRECTS = 5
"""Maximum number of redirects; more count as a loop."""
TAIL_S = 5.0
"""How long to wait, in seconds, for the usage after a complete answer."""
DRAIN_S = 0.2
"""How long to wait, in seconds, for the end of the body, so that the connection can be reused."""

_FIELDS = ("d", "e", "i", "r", ":")
"""First characters of an event stream's lines; JSON begins with none of them."""

_FAULTS = (httpx2.TransportError, httpx2.DecodingError, ssl.SSLError, anyio.EndOfStream)


def http_client(base_url: str, timeout_s: float) -> httpx2.AsyncClient:
    """Create a client that keeps its connections for the whole run.

    ``timeout_s`` limits the silence between two reads. Loading the certificate store takes about
    0.1 s, so plain http gets a context without certificates, with which a redirect to https fails.
    Servers on this machine are reached without the environment's proxy.

    Raises:
        ConfigError: the process is offline (``sandbox/offline.py``) and the server is on another
            machine, or the environment's proxy cannot be used.
    """
    if offline.active() and not offline.is_loopback(httpx2.URL(base_url).host):
        raise ConfigError(
            f"offline: {base_url} is not on this machine",
            hint="Choose the model embedded, local:PATH, or one of a server on this machine",
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
        # Following it would turn the request into a GET without a body.
        response.headers[MOVED] = response.headers.pop("location")


def bodiless_error(origin: Origin, error: httpx2.RequestError) -> ProviderError:
    """The error for an error response whose body could not be read, from its status alone."""
    head = error.request.extensions.get("head")
    if head is None:
        return connection_error(origin, error)
    status, headers = head
    return status_error(origin, status, None, headers)


class Answer:
    """One HTTP response: server-sent events or a JSON body, whichever the server chose."""

    def __init__(self, response: httpx2.Response, origin: Origin) -> None:
        self._response = response
        self._origin = origin
        self._pieces = response.aiter_text()
        self._start = ""
        self.whole = False
        """Set once the answer is complete: later errors and silence are then ignored."""
        self.done = False
        """Set once nothing more can follow."""

    async def is_json(self) -> bool:
        """Whether the response is one JSON body.

        Decided mainly by its first character, because many servers send a wrong content type or
        none.

        Raises:
            StreamBrokenError: the response broke off, or is an HTML page.
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
        """The JSON object of a response that is not streamed.

        Raises:
            StreamBrokenError: the response broke off, or is not a JSON object.
            ProviderError: it is an error object.
        """
        try:
            text = "".join([piece async for piece in self._text()])
        except _FAULTS as error:
            raise broken_error(self._origin, error) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            what = f"a body that is not JSON{quoted(self._origin, text)}"
            raise not_the_protocol(self._origin, what) from error
        return self._checked(value)

    async def events(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Stream event names and JSON objects; ``[DONE]`` comes as a name with an empty object.

        Raises:
            StreamBrokenError: the response broke off, or is not an event stream.
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
                value = self._checked(json.loads(event.data), failed=event.event == "error")
            except (ValueError, RecursionError, ProviderError) as error:
                if self.whole:
                    return  # what follows the answer was cut off, or failed
                if isinstance(error, ProviderError):
                    raise
                what = f"an event is not JSON{quoted(self._origin, event.data)}"
                raise broken_error(self._origin, what) from error
            yield event.event, value
        if not seen:
            what = f"no event stream{quoted(self._origin, self._start)}"
            raise not_the_protocol(self._origin, what)

    async def _decoded(self) -> AsyncIterator[httpx2.ServerSentEvent]:
        text = cast("httpx2.Response", _Text(self._response.request, self._text()))
        source = aiter(httpx2.EventSource(text, max_event_size=None))
        while True:
            try:
                # Never yield inside the timeout: it could cancel the reader of this generator.
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
        yield "\n\n"  # not every server sends it after the last event

    async def aclose(self) -> None:
        """Release the connection."""
        await self._response.aclose()

    def _checked(self, value: object, *, failed: bool = False) -> Mapping[str, Any]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]
        if not isinstance(value, dict):
            raise not_the_protocol(self._origin, "JSON that is not an object")
        if failed or value.get("error"):
            raise stream_error(self._origin, value)
        return value


class _Text:
    """The part of a response that ``EventSource`` needs, for partly read text."""

    headers = MappingProxyType({"content-type": "text/event-stream"})

    def __init__(self, request: httpx2.Request, pieces: AsyncIterator[str]) -> None:
        self.request = request
        self._pieces = pieces

    def aiter_text(self) -> AsyncIterator[str]:
        return self._pieces
