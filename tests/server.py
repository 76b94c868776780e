"""A scripted model server on loopback that speaks the providers' wire formats.

    async with ScriptedServer([
        Reply(text="hi"),
        Reply(calls=[("read_file", {"path": "a.py"})]),
        Reply(status=429, headers={"retry-after": "1"}),
    ]) as server:
        ...                       # OPENAI_BASE_URL = server.url  (http://127.0.0.1:PORT/v1)
        server.requests[0].json   # the requests, in order of arrival

The server runs in its own thread, so a plain ``with`` works too, for tests of subprocesses. The
path of a request selects the wire format: ``/v1/chat/completions`` (OpenAI), ``/v1/responses``
(OpenAI) or ``/v1/messages`` (Anthropic). The server streams its answer or sends one JSON body,
whichever the request asks for.

A request that the real service would reject as malformed (a call without its result, null content,
...) gets a 400 and an entry in ``server.faults``, which tests should assert to be empty. After the
last reply of the script, the answer is a 400 with the code ``script_exhausted``; with
``repeat=True`` the last reply is repeated. An item of the script may also be a function that makes
a Reply from the Request.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from agentcli.messages import Usage
from tests import wires


@dataclass(frozen=True)
class Reply:
    """One answer. The fields come in three groups: its content, how it is sent, how it fails.

    ``calls`` are (name, arguments), with arguments as a mapping or as raw text; ``call_ids`` sets
    their ids ("" omits the id). ``finish`` is the finish reason in the wire's own terms; None picks
    the one that fits, "" omits it. ``split`` is the size of each write in bytes, or the offsets at
    which to split.
    """

    text: str = ""
    calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    thinking: str = ""
    usage: Usage | None = field(default_factory=lambda: Usage(input_tokens=100, output_tokens=10))
    finish: str | None = None
    call_ids: Sequence[str] | None = None

    status: int = 200
    code: str | None = None  # the error code in the body of an error status
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent instead of everything above
    content_type: str | None = None
    stream: bool | None = None  # None: whatever the request asks for
    split: int | Sequence[int] | None = None
    piece: int = 0  # characters per delta; 0: an eighth of the text
    done: bool = True  # whether to send [DONE] or the last event
    one_by_one: bool = True  # False: interleave the deltas of parallel calls
    omit_index: bool = False  # OpenAI: leave "index" out of tool call deltas
    error_event: Mapping[str, Any] | None = None  # ends the stream instead of the last event

    until: threading.Event | None = None  # wait for it before the head, at most 5 minutes
    delay_s: float = 0.0  # wait before the head
    pause_s: float = 0.0  # wait before every write
    reset_before_head: bool = False
    reset_after: int | None = None  # send so many bytes of the body, then RST
    close_after: int | None = None  # ... then FIN, with the HTTP body incomplete
    cut_after: int | None = None  # ... then end the HTTP body properly
    stall_after: int | None = None  # ... then send nothing until the client leaves


@dataclass(frozen=True)
class Request:
    """A request. ``connection`` counts TCP connections from 0; ``json`` is {} without a body."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    json: Any
    connection: int


Script = Sequence[Reply | Callable[[Request], Reply]]


class ScriptedServer:
    """See the module docstring. ``requests`` and ``faults`` may be read at any time."""

    def __init__(self, script: Script, *, repeat: bool = False, models: Sequence[str] = ()) -> None:
        self.script = list(script)
        self.repeat = repeat
        self.models = list(models)
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.connections = 0
        self.port = 0
        self._next = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL for the OpenAI wires."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def root(self) -> str:
        """The base URL for the Anthropic wire."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def left(self) -> int:
        """The number of replies not sent yet."""
        return len(self.script) - self._next

    def start(self) -> ScriptedServer:
        """Start the server and wait until it accepts connections."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None

    def __enter__(self) -> ScriptedServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> ScriptedServer:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _serve(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        server = loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        loop.run_until_complete(self._close(server))
        loop.close()

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection, self.connections = self.connections, self.connections + 1
        try:
            while (request := await _read(reader, connection)) is not None:
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(
        self,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Send one reply; return whether the connection stays open."""
        self.requests.append(request)
        if request.method == "GET" and request.path.endswith("/models"):
            listing = {
                "object": "list",
                "data": [{"id": m, "object": "model"} for m in self.models],
            }
            await _send(
                writer,
                200,
                {},
                "application/json",
                [json.dumps(listing).encode()],
                False,
            )
            return True
        wire = wires.wire_of(request.path)
        if wire is None:
            await _refuse(writer, 404, f"no such path: {request.path}", "not_found")
            return True
        if request.path.endswith("/count_tokens"):
            count = json.dumps({"input_tokens": max(1, len(request.raw) // 4)}).encode()
            await _send(writer, 200, {}, "application/json", [count], False)
            return True
        faults = wire.check(request.json)
        if faults:
            self.faults += faults
            await _refuse(writer, 400, "; ".join(faults), "invalid_request")
            return True
        reply = self._take(request)
        if reply is None:
            await _refuse(writer, 400, "the script is used up", "script_exhausted")
            return True
        return await _play(reply, wire, request, reader, writer)

    def _take(self, request: Request) -> Reply | None:
        if self._next >= len(self.script):
            if not self.repeat or not self.script:
                return None
            item = self.script[-1]
        else:
            item = self.script[self._next]
            self._next += 1
        return item if isinstance(item, Reply) else item(request)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines if line)
    }
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(
        method,
        path.partition("?")[0],
        headers,
        raw,
        json.loads(raw) if raw else {},
        connection,
    )


async def _play(
    reply: Reply,
    wire: wires.Wire,
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    if reply.until is not None:
        await asyncio.to_thread(reply.until.wait, 300)
    if reply.reset_before_head:
        _reset(writer)
        return False
    asked = bool(request.json.get("stream"))
    streams = asked if reply.stream is None else reply.stream
    if reply.status != 200 and reply.body is None:
        body = wire.error(reply)
        content_type = "application/json"
        streams = False
    elif reply.body is not None:
        body, content_type = (
            reply.body,
            "text/event-stream" if streams else "application/json",
        )
    elif streams:
        body, content_type = wire.stream(reply, request.json), "text/event-stream"
    else:
        body, content_type = wire.body(reply, request.json), "application/json"

    stops = [
        stop
        for stop in (
            reply.reset_after,
            reply.close_after,
            reply.cut_after,
            reply.stall_after,
        )
        if stop is not None
    ]
    if stops:
        body = body[: min(stops)]
    pieces = _split(body, reply.split)
    unfinished = any(
        stop is not None for stop in (reply.reset_after, reply.close_after, reply.stall_after)
    )
    await _send(
        writer,
        reply.status,
        reply.headers,
        reply.content_type or content_type,
        pieces,
        streams or unfinished,
        end=not unfinished,
        pause_s=reply.pause_s,
    )
    if reply.stall_after is not None:
        await reader.read(1)  # returns when the client leaves
    elif reply.reset_after is not None:
        # An RST discards what the peer has not read yet, so give it time to read.
        await asyncio.sleep(0.2)
        _reset(writer)
    return not unfinished


def _split(body: bytes, split: int | Sequence[int] | None) -> list[bytes]:
    if split is None:
        return [body]
    if isinstance(split, int):
        return [body[start : start + split] for start in range(0, len(body), split)]
    edges = [0, *split, len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges) if start < end]


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    headers: Mapping[str, str],
    content_type: str,
    pieces: Sequence[bytes],
    chunked: bool,
    *,
    end: bool = True,
    pause_s: float = 0.0,
) -> None:
    length = sum(map(len, pieces))
    if status in (204, 304):  # responses without a body
        pieces, chunked, length = [], False, 0
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", framing]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for piece in pieces:
        if pause_s:
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked and piece else piece)
    if chunked and end:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, status: int, message: str, code: str) -> None:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    await _send(writer, status, {}, "application/json", [json.dumps(body).encode()], False)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
