"""Serves the chat as a web page on this machine to whoever holds the token.

The first visit needs the token in the URL; a same-site cookie then keeps it. Requests with neither
are refused, and so are requests from other origins.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

_COOKIE = "agentcli"
_HOST = "127.0.0.1"
# textual-serve's page would otherwise load a font from a third party.
_ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: ws:"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ChatServer(Server):
    """Runs one ``command`` for each open page. ``announce`` is called with the address."""

    def __init__(self, command: str, *, port: int, announce: Callable[[str], None]) -> None:
        self.token = secrets.token_urlsafe(24)
        self._announce = announce
        super().__init__(command, host=_HOST, port=port or _free_port(), title="agentcli chat")

    @property
    def address(self) -> str:
        """The page's URL, including the token."""
        return f"http://{_HOST}:{self.port}/?token={self.token}"

    def initialize_logging(self) -> None:
        """Do nothing: agentcli configures logging."""

    async def on_startup(self, app: web.Application) -> None:
        """Announce the page's URL."""
        self._announce(self.address)

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        app.middlewares.append(guard)
        return app

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.query.get("token", "")
        kept = request.cookies.get(_COOKIE, "")
        if not any(
            secrets.compare_digest(one.encode(), self.token.encode()) for one in (given, kept)
        ):
            raise web.HTTPForbidden(text="The address lacks its token: use the whole of it.\n")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != f"{_HOST}:{self.port}":
            raise web.HTTPForbidden(text="Not from another page.\n")
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = _ONLY_HERE
        if given and not response.prepared:
            response.set_cookie(_COOKIE, self.token, httponly=True, samesite="Strict")
            response.headers["Referrer-Policy"] = "no-referrer"
        return response


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
