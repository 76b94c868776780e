"""Talks to a file worker over a pair of streams, with any number of requests in flight."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from agentcli.errors import EnvironmentOpError

_HEAD = struct.Struct("!II")


class WorkerLink:
    """agentcli's end of a worker's pipe."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ready: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting = {0: self._ready}
        self._next = 1
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._listen())

    @property
    def closed(self) -> bool:
        """Whether the worker can no longer answer."""
        return self._closed

    async def ready(self) -> None:
        """Wait until the worker is ready.

        Raises:
            EnvironmentOpError: code ``EPIPE``, the worker ended before that.
        """
        await self._ready

    async def call(self, op: str, data: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """Request one operation and return its value and its bytes.

        Raises:
            EnvironmentOpError: the operation failed, or (code ``EPIPE``) the worker died.
        """
        if self._closed:
            raise _died()
        number = self._next
        self._next += 1
        text = json.dumps({"id": number, "op": op, **arguments}).encode()
        future: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(_HEAD.pack(len(text), len(data)) + text)
            if data:
                self._writer.write(data)
                await self._writer.drain()
            return await future
        except ConnectionError as error:
            raise _died() from error
        finally:
            self._waiting.pop(number, None)

    async def aclose(self) -> None:
        """Close the pipe, upon which the worker ends by itself."""
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while True:
                size, extra = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                answer = json.loads(await self._reader.readexactly(size))
                data = await self._reader.readexactly(extra) if extra else b""
                future = self._waiting.pop(answer["id"], None)
                if future is None or future.done():
                    continue  # its caller was cancelled
                if "error" in answer:
                    code, message = answer["error"]
                    future.set_exception(EnvironmentOpError(message, code=code))
                else:
                    future.set_result((answer["ok"], data))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            self._closed = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_died())
            self._waiting.clear()


def _died() -> EnvironmentOpError:
    return EnvironmentOpError(
        "the file worker died during this call; it has been restarted, "
        "and whether the call had an effect is unknown",
        code="EPIPE",
    )
