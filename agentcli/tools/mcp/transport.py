"""The transports to an MCP server: a process's pipes, streamable HTTP or the older SSE."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentcli.errors import ConfigError
from agentcli.sandbox.outside import environment, without_network
from agentcli.settings import McpServerSettings

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.shared.message import SessionMessage

_MOST_LINE = 16 * 1024 * 1024
_MOST_NONSENSE = 100
_GRACE_S = 1.0
_CONNECT_S = 30.0
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class End:
    """The end of a connection: ``came`` is set when it has ended, ``words`` say why.

    ``refusal`` is the status of the last response if it was an error without an answer.
    ``forgotten`` means that the server refused a request because it no longer knows the session,
    for example after a restart.
    """

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.words = ""
        self.refusal = ""
        self.forgotten = False


@asynccontextmanager
async def http(url: str, headers: Mapping[str, str], end: End) -> AsyncIterator[TransportStreams]:
    """Streamable HTTP through the SDK, which by itself keeps using a session that is gone."""
    import httpx2
    from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client

    async def look(response: httpx2.Response) -> None:
        request = response.request
        if request.method != "POST":
            return
        asked = _id(request.content)
        refused = response.is_error and (asked is None or _id(await response.aread()) != asked)
        end.refusal = _refusal(response) if refused else ""
        # The specification says 404, many servers send 400. Both have other causes, too, but then
        # the body is an answer with this request's id.
        in_session = asked is not None and MCP_SESSION_ID in request.headers
        if refused and in_session and response.status_code in (400, 404):
            end.words, end.forgotten = "does not know the session any more", True
            end.came.set()

    hooks = {"response": [look]}
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=_timeout(), event_hooks=hooks) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=_MOST_LINE) as streams,
    ):
        yield streams


@asynccontextmanager
async def sse(url: str, headers: Mapping[str, str], end: End) -> AsyncIterator[TransportStreams]:
    """The older transport, whose answers are events of one long response."""
    import anyio
    import httpx2
    from mcp.client.sse import sse_client
    from mcp.shared.message import SessionMessage

    def connect(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=headers, timeout=_timeout(), auth=auth)

    async with sse_client(url, dict(headers), httpx_client_factory=connect) as (messages, write):
        inbox, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)

        async def receive() -> None:
            async with inbox:
                async for message in messages:
                    await inbox.send(message)
            end.words = end.words or "closed the connection"
            end.came.set()

        receiving = asyncio.ensure_future(receive())
        try:
            yield read, write
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            read.close()


def _timeout() -> Any:
    """Calls have deadlines of their own, which may be longer than any wait for a connection."""
    import httpx2

    return httpx2.Timeout(_CONNECT_S, read=None)


def _refusal(response: Any) -> str:
    status = f"answers {response.status_code} {response.reason_phrase}".rstrip()
    return f"{status}; its headers can hold a token" if response.status_code == 401 else status


def _id(body: bytes) -> Any:
    """The id of a JSON-RPC request or response; None for anything else."""
    try:
        return json.loads(body)["id"]
    except (ValueError, KeyError, TypeError):
        return None


@asynccontextmanager
async def stdio(
    settings: McpServerSettings,
    folder: str,
    environ: Mapping[str, str],
    end: End,
    *,
    offline: bool = False,
) -> AsyncIterator[TransportStreams]:
    """JSON-RPC lines over a process's pipes.

    Used instead of the SDK's transport, which lets a line grow without limit and gives the server
    our stderr. With ``offline``, the process has no network except its own loopback.
    """
    import anyio
    from mcp.shared.message import SessionMessage

    process = await _started(settings, folder, environ, offline)
    inbox, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    listening = asyncio.ensure_future(_listen(process, end))
    tasks = [
        listening,
        asyncio.ensure_future(_receive(process, inbox, listening, end)),
        asyncio.ensure_future(_send(process, outbox)),
    ]
    try:
        yield read, write
    finally:
        for stream in (read, write):
            stream.close()
        await _end(process)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _receive(
    process: asyncio.subprocess.Process,
    inbox: MemoryObjectSendStream[SessionMessage | Exception],
    listening: asyncio.Future[None],
    end: End,
) -> None:
    """Pass on the server's messages until it ends or misbehaves."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    assert process.stdout
    nonsense = 0
    async with inbox:
        try:
            while line := await process.stdout.readline():
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:  # tolerate a greeting on the wrong stream
                    nonsense += bool(line.strip())
                    if nonsense > _MOST_NONSENSE:
                        end.words = "writes what is not JSON-RPC"
                        return
                    continue
                await inbox.send(SessionMessage(message))
            await asyncio.wait({listening}, timeout=_GRACE_S)
            said = f": {end.words}" if end.words else ""
            try:
                code = await asyncio.wait_for(process.wait(), _GRACE_S)
                end.words = f"ended with exit code {code}{said}"
            except TimeoutError:
                end.words = f"closed its output{said}"
        except ValueError:
            end.words = f"sent a line of over {_MOST_LINE >> 20} MiB"
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # the session is over
        finally:
            end.came.set()


async def _send(
    process: asyncio.subprocess.Process, outbox: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    assert process.stdin
    async with outbox:
        async for message in outbox:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
            except OSError:
                return  # _receive handles the end


async def _listen(process: asyncio.subprocess.Process, end: End) -> None:
    """Keep the last line of the server's stderr."""
    assert process.stderr
    while data := await process.stderr.read(4096):
        if lines := data.decode(errors="replace").strip().splitlines():
            end.words = lines[-1]


async def _started(
    settings: McpServerSettings, folder: str, environ: Mapping[str, str], offline: bool
) -> asyncio.subprocess.Process:
    own = {key: filled(text, environ) for key, text in settings.env.items()}
    argv = [filled(word, environ) for word in (*settings.command, *settings.args)]
    if offline:
        if shutil.which(argv[0], path=own.get("PATH", environ.get("PATH"))) is None:
            raise FileNotFoundError(errno.ENOENT, "not found", argv[0])
        argv = without_network(argv)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=folder,
        env=environment(environ) | own,
        limit=_MOST_LINE,
        start_new_session=True,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the input, then send SIGTERM, then SIGKILL, in the specification's order."""
    assert process.stdin
    process.stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        # Wait after the last one, too: asyncio warns about a child it has not seen end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # any processes it left behind
    # A descendant in its own session may keep the pipes open; there is no public way to close them.
    process._transport.close()  # type: ignore[attr-defined]


def filled(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` from the environment.

    Raises:
        ConfigError: a variable is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in environ:
            return environ[name]
        if default is None:
            raise ConfigError(f"the variable {name} is not set")
        return str(default)

    return _VARIABLE.sub(value, text)


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
