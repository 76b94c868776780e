"""The proxy for allowed domains; the tests talk to it as the forwarder in the sandbox does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from agentcli.sandbox.destinations import Destinations
from agentcli.sandbox.proxy import Proxy

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Inside:
    """The end inside the sandbox: accepts connections and hands them over."""

    def __init__(self, *domains: str) -> None:
        self.proxy = Proxy(Destinations(domains))
        self.gate, self.link = self.proxy.open()

    async def connect(self) -> Stream:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                socket.send_fds(self.link, [b"."], [accepted.fileno()])
        return await asyncio.open_connection(sock=near)

    async def say(self, request: str) -> str:
        """Send one request and read the whole answer."""
        reader, writer = await self.connect()
        writer.write(request.encode())
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer.decode()

    async def aclose(self) -> None:
        self.gate.close()
        self.link.close()
        await self.proxy.aclose()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + head)
    await writer.drain()
    writer.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that answers with the head of the request."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_plain_request_is_passed_on_without_what_was_for_the_proxy(port: int) -> None:
    inside = Inside(f"localhost:{port}")
    answer = await inside.say(
        f"GET http://me@localhost:{port}/a?b=c#d HTTP/1.1\r\nHost: elsewhere\r\nX: y\r\n"
        "Proxy-Authorization: secret\r\nConnection: keep-alive\r\n\r\n"
    )
    await inside.aclose()
    lines = answer.split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert lines[2:6] == [
        *("GET /a?b=c HTTP/1.1", f"Host: localhost:{port}", "X: y", "Connection: close")
    ]


async def test_a_tunnel_carries_bytes_both_ways(port: int) -> None:
    inside = Inside(f"localhost:{port}")
    reader, writer = await inside.connect()
    writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.write(b"any bytes\xff\r\n\r\n")
    assert (await reader.read()).endswith(b"any bytes\xff\r\n\r\n")
    writer.close()
    await inside.aclose()


@pytest.mark.parametrize(
    ("request_line", "status", "why"),
    [
        ("CONNECT example.org:443 HTTP/1.1", 403, "example.org:443 is not among the domains"),
        ("GET http://example.org/ HTTP/1.1", 403, "example.org:80 is not among the domains"),
        ("CONNECT 10.0.0.1:22 HTTP/1.1", 403, "10.0.0.1:22 is not among the domains"),
        ("CONNECT inside.example:443 HTTP/1.1", 403, "inside.example leads to 127.0.0.1"),
        ("CONNECT localhost:1 HTTP/1.1", 502, "localhost:1: Connection refused"),
        ("GET / HTTP/1.1", 400, "not a request for a proxy"),
        ("GET ftp://localhost/ HTTP/1.1", 400, "not a request for a proxy"),
        ("nonsense", 400, "not a request for a proxy"),
    ],
)
async def test_refusals(
    request_line: str, status: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    really = loop.getaddrinfo

    async def getaddrinfo(host: str, *more: object, **options: object) -> object:
        return await really("127.0.0.1" if host == "inside.example" else host, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    inside = Inside("localhost", "inside.example")
    answer = await inside.say(f"{request_line}\r\n\r\n")
    await inside.aclose()
    assert answer.startswith(f"HTTP/1.1 {status} ") and f"agentcli: {why}" in answer


async def test_only_connections_are_taken() -> None:
    inside = Inside("localhost")
    reader, writer = os.pipe()
    socket.send_fds(inside.link, [b"."], [writer])
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 1) == b""  # closed without being used
    os.close(reader)
    pair = socket.socketpair()
    socket.send_fds(inside.link, [b"."], [pair[1].fileno()])
    pair[1].close()
    assert await asyncio.to_thread(pair[0].recv, 1) == b""
    pair[0].close()
    assert "HTTP/1.1 400" in await inside.say("x\r\n\r\n")  # the proxy still works
    await inside.aclose()
