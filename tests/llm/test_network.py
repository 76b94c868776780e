"""Network errors and proxies, as in the table in docs/providers.md."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentcli.errors import AccessDeniedError, ConfigError, ConnectError, ProviderError
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.llm.sdk_errors import proxy_of
from agentcli.messages import user
from tests.server import Reply, ScriptedServer

MAKE = {"chat": OpenAIChat, "responses": OpenAIResponses, "messages": AnthropicMessages}
INFO = ModelInfo("m", "lab")
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
AFAR = "models.example"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def ask(wire: str, url: str) -> str:
    make: Callable[..., OpenAIChat] = MAKE[wire]  # type: ignore[assignment]
    client = make(INFO, "sk-secret", url)
    try:
        return (await chat(client, ChatRequest((user("go"),)))).message.text
    finally:
        await client.aclose()


async def fault(wire: str, url: str) -> ProviderError:
    with pytest.raises(ProviderError) as found:
        await ask(wire, url)
    assert "\n" not in found.value.line()
    return found.value


@asynccontextmanager
async def answering(said: bytes, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run a server that answers the first bytes of any client with ``said``; yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def dead_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


every_wire = pytest.mark.parametrize("wire", MAKE)


@every_wire
async def test_an_unknown_host(wire: str) -> None:
    error = await fault(wire, "http://no-such-host.invalid/v1")
    assert isinstance(error, ConnectError)
    assert "http://no-such-host.invalid" in error.message


@every_wire
async def test_nobody_listens(wire: str, dead_port: int) -> None:
    error = await fault(wire, f"http://127.0.0.1:{dead_port}/v1")
    assert isinstance(error, ConnectError) and "the server is running" in error.line()


@every_wire
async def test_https_to_plain_http(wire: str) -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") as port:
        error = await fault(wire, f"https://127.0.0.1:{port}/v1")
    assert isinstance(error, ConnectError) and "http or https" in error.line()


@every_wire
async def test_http_to_tls(wire: str) -> None:
    async with answering(b"\x15\x03\x01\x00\x02\x02\x46") as port:  # a TLS alert
        error = await fault(wire, f"http://127.0.0.1:{port}/v1")
    assert isinstance(error, ConnectError) and "http or https" in error.line()


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    line = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=here -keyout {pem} -out {pem}.crt"
    subprocess.run(line.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{pem}.crt", pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        error = await fault("chat", f"https://127.0.0.1:{port}/v1")
    assert isinstance(error, ConnectError) and "certificate" in error.message


@every_wire
async def test_an_ipv6_address(wire: str) -> None:
    with ScriptedServer([Reply(text="done")]) as server:

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", server.port)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                target.close()

            await asyncio.gather(copy(reader, back), copy(there, writer))

        try:
            bridge = await asyncio.start_server(pass_on, "::1", 0)
        except OSError:
            pytest.skip("no IPv6 here")
        async with bridge:
            port = bridge.sockets[0].getsockname()[1]
            assert await ask(wire, f"http://[::1]:{port}/v1") == "done"


@every_wire
async def test_a_proxy_is_used_and_named_when_it_is_dead(
    wire: str, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pass@127.0.0.1:{dead_port}")
    error = await fault(wire, f"http://{AFAR}/v1")
    assert isinstance(error, ConnectError)
    assert f"through the proxy http://127.0.0.1:{dead_port}:" in error.message
    assert "HTTP_PROXY" in error.line() and "pass" not in error.line()


@every_wire
async def test_a_proxy_that_asks_who_you_are(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n") as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        error = await fault(wire, f"http://{AFAR}/v1")
        tunnel = await fault(wire, f"https://{AFAR}/v1")
    assert isinstance(error, AccessDeniedError) and "NAME:PASSWORD" in error.line()
    assert isinstance(tunnel, ConnectError) and "407 Who are you" in tunnel.message


@every_wire
async def test_servers_here_are_reached_past_the_proxy(
    wire: str, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{dead_port}")
    with ScriptedServer([Reply(text="done")]) as server:
        assert await ask(wire, server.url) == "done"


@pytest.mark.parametrize("proxy", ["foo://bar", "http://[::1"])
def test_a_proxy_of_an_unknown_kind(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ConfigError, match="proxy of the environment"):
        OpenAIChat(INFO, "sk-secret", f"http://{AFAR}/v1")


def test_which_proxy_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://u:p@one:3128")
    monkeypatch.setenv("ALL_PROXY", "http://two:3128")
    monkeypatch.setenv("NO_PROXY", "inner.example")
    assert proxy_of("https://models.example/v1") == "http://one:3128"
    assert proxy_of("http://models.example/v1") == "http://two:3128"
    assert proxy_of("http://inner.example/v1") == ""
    assert proxy_of("http://localhost:8000/v1") == ""


def test_the_table_has_a_row_for_each() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text("utf-8")
    section = text.partition("## Networks and proxies\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| .+ \| .+ \|$", section, re.MULTILINE)) == 1 + 9
