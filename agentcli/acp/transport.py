"""JSON-RPC messages, one to a line, over stdin and stdout.

The SDK's own transport ends the connection at a line whose JSON is not an object; this one answers
with an error, as JSON-RPC 2.0 demands, and reads on. Its streams close ``sys.stdout`` when the
editor does, which nothing after it expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

INVALID_REQUEST = -32600
PARSE_ERROR = -32700


async def stdio() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over stdin and stdout; when they end, ``sys.stdout`` stays open."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    transport, flow = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), out
    )
    return reader, asyncio.StreamWriter(transport, flow, None, loop)


class LineTransport:
    """The SDK's ``Transport`` over byte streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()

    async def send(self, message: dict[str, Any]) -> None:
        """Write a message, unless the editor is gone: then ``receive`` ends the connection."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        async with self._sending:
            if not self._writer.is_closing():
                self._writer.write(line)
                with contextlib.suppress(ConnectionError):
                    await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end of the stream."""
        while line := await self._line():
            if not line.strip():
                continue
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                await self._refuse(PARSE_ERROR, "not JSON")
                continue
            if isinstance(message, dict):
                return message
            await self._refuse(INVALID_REQUEST, "a message must be a JSON object")
        return None

    async def close(self) -> None:
        """Nothing to do: the streams belong to the process."""

    async def _line(self) -> bytes:
        """A line of any length, however small the reader's buffer is; empty at the end."""
        pieces: list[bytes] = []
        while True:
            try:
                pieces.append(await self._reader.readuntil(b"\n"))
            except asyncio.LimitOverrunError as overrun:
                pieces.append(await self._reader.readexactly(overrun.consumed))
                continue
            except asyncio.IncompleteReadError as end:
                pieces.append(end.partial)
            return b"".join(pieces)

    async def _refuse(self, code: int, why: str) -> None:
        error = {"code": code, "message": why}
        await self.send({"jsonrpc": "2.0", "id": None, "error": error})
