"""The proxy for the network policy ``allow``. It runs in agentcli, outside the sandbox.

A command has no network except a private loopback. A forwarder (``forwarder.py``) listens there and
passes every connection out to this proxy, over a socket that was open before the command began, so
nothing of the host has to be visible inside. The proxy speaks HTTP: CONNECT for TLS and everything
else, and plain requests with an absolute URL. It resolves names itself and connects to the very
address that it has checked.

Covers: hosts outside the list (403, with a line that says so); see ``destinations.py``.
Does not cover: programs that do not use a proxy, which reach nothing; UDP; the content of an
    allowed connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from agentcli.sandbox.destinations import Destinations, normal, split_port

LINK_FD = 10
PORT = 3128
"""On the command's private loopback, where no other program can have taken it."""

_URL = f"http://127.0.0.1:{PORT}"
_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
ENV = {
    **dict.fromkeys(_VARIABLES, _URL),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
    "NODE_USE_ENV_PROXY": "1",
}
"""The variables that tell a command about the proxy."""

HEAD_BYTES = 65536
HEAD_S = 30.0
CONNECT_S = 15.0
MOST_CONNECTIONS = 256
"""At once; further ones are closed."""

_HOP_BY_HOP = frozenset({"proxy-connection", "proxy-authorization", "connection", "keep-alive"})


def through(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line that starts the forwarder, then ``argv``; LINK_FD must be a gate's end."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "forwarder.py")
    with open(path, encoding="utf-8") as file:
        code = file.read()
    interpreter = os.path.realpath(sys.executable)
    return (interpreter, "-I", "-S", "-c", code, str(LINK_FD), str(PORT), *argv)


class Refused(Exception):
    """The request is refused; ``args`` are the HTTP status and one line of text."""


class Proxy:
    """Serves the connections of any number of commands, in the running event loop."""

    def __init__(self, destinations: Destinations) -> None:
        self.destinations = destinations
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> tuple[Gate, socket.socket]:
        """A gate, and the socket for a command's forwarder, which the caller closes."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        return Gate(self, ours), theirs

    def serve(self, connection: socket.socket) -> bool:
        """Take over a connection; False if there are too many already."""
        if len(self._tasks) >= MOST_CONNECTIONS:
            return False
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection, limit=HEAD_BYTES)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, reader, writer)
        except Refused as error:
            status, text = error.args
            with contextlib.suppress(OSError):
                writer.write(_refusal(status, text))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone, or does not speak HTTP
        finally:
            writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        line, _, fields = head.decode("latin-1").partition("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refused(400, "not a request for a proxy")
        method, target, _ = words
        first = b""
        try:
            if method == "CONNECT":
                host, port = split_port(target)
                port = port or 443
            else:
                host, port, first = _plain_request(method, target, fields)
        except ValueError as error:
            raise Refused(400, f"not a request for a proxy: {error}") from error
        far_reader, far_writer = await self._connect(host, port)
        try:
            if first:
                far_writer.write(first)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, far_writer))
                both.create_task(_pump(far_reader, writer))
        finally:
            far_writer.close()

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.destinations.permits(host, port):
            raise Refused(403, f"{host}:{port} is not among the domains that may be reached")
        name = normal(host)
        try:
            async with asyncio.timeout(CONNECT_S):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
                addresses = [str(entry[4][0]) for entry in found]
                allowed = [
                    one for one in addresses if self.destinations.permits_address(one, port, name)
                ]
                if not allowed:
                    raise Refused(403, f"{host} leads to {addresses[0]}, an address inside")
                for address in allowed[:-1]:
                    with contextlib.suppress(OSError):
                        return await asyncio.open_connection(address, port)
                return await asyncio.open_connection(allowed[-1], port)
        except TimeoutError as error:
            raise Refused(504, f"{host}:{port} does not answer") from error
        except OSError as error:
            number = error.errno or 0
            why = os.strerror(number) if number > 0 else "cannot be found"
            raise Refused(502, f"{host}:{port}: {why}") from error


class Gate:
    """Receives the connections of one command for as long as it runs."""

    def __init__(self, proxy: Proxy, link: socket.socket) -> None:
        self._proxy = proxy
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(link, self._receive)

    def close(self) -> None:
        """Accept no more connections."""
        if self._link.fileno() >= 0:
            self._loop.remove_reader(self._link)
            self._link.close()

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._link, 1, 8)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            connection = _as_connection(descriptor)
            if connection is not None and not self._proxy.serve(connection):
                connection.close()
        if not data:
            self.close()


def _as_connection(descriptor: int) -> socket.socket | None:
    """Accept a TCP connection only: a descriptor from inside may be anything."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    inet = connection.family in (socket.AF_INET, socket.AF_INET6)
    if inet and connection.type == socket.SOCK_STREAM:
        return connection
    connection.close()
    return None


def _plain_request(method: str, target: str, fields: str) -> tuple[str, int, bytes]:
    """Host, port and the head to send on, for a request with an absolute URL."""
    url = urlsplit(target)
    if url.scheme != "http" or not url.hostname:
        raise ValueError("a whole http:// URL is wanted")
    if any(ord(letter) <= 32 for letter in target):
        raise ValueError("white space in the URL")
    path = target[len("http://") + len(url.netloc) :] or "/"
    if not path.startswith("/"):
        path = "/" + path
    kept = []
    for field in fields.split("\r\n"):
        name = field.partition(":")[0].strip().lower()
        if field and name not in _HOP_BY_HOP and name != "host":
            kept.append(field)
    authority = url.netloc.rpartition("@")[2]
    lines = (f"{method} {path.partition('#')[0]} HTTP/1.1", f"Host: {authority}", *kept)
    # One request per connection, so that each is checked.
    head = "\r\n".join((*lines, "Connection: close", "", ""))
    return url.hostname, url.port or 80, head.encode("latin-1")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes from one side to the other until end of file, and pass that on too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _refusal(status: int, text: str) -> bytes:
    body = f"agentcli: {text}\n".encode()
    reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 504: "Gateway Timeout"}
    head = (
        f"HTTP/1.1 {status} {reason[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
