"""The engine process's end of the socket: lines of JSON."""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from typing import Any

STARTS = ("generate", "complete", "check")


class Closed(Exception):
    """The other side closed the socket."""


class Wire:
    """Sends and receives lines of JSON; reads ahead, to notice a cancellation while decoding."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._waiting: deque[dict[str, Any]] = deque()

    def send(self, event: str, **fields: Any) -> None:
        try:
            self._link.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")
        except OSError:
            raise Closed from None

    def next(self, op: str = "", number: int | None = None) -> dict[str, Any]:
        """Return the next message, or the next with this ``op`` and id; others stay queued.

        Raises:
            Closed: the other side closed the socket.
        """
        while True:
            for at, message in enumerate(self._waiting):
                if not op or (message["op"] == op and message.get("id") == number):
                    del self._waiting[at]
                    return message
            self._read()

    def cancelled(self, number: int) -> bool:
        """Whether the request was cancelled. Reads what has arrived, without blocking."""
        while select.select([self._link], [], [], 0)[0]:
            self._read()
        return any(m["op"] == "cancel" and m["id"] == number for m in self._waiting)

    def forget(self, number: int) -> None:
        """Drop the queued messages of a request that has ended."""
        kept = [m for m in self._waiting if m.get("id") != number or m["op"] in STARTS]
        self._waiting = deque(kept)

    def _read(self) -> None:
        try:
            data = self._link.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            raise Closed
        *lines, rest = (self._buffer + data).split(b"\n")
        self._buffer = bytearray(rest)
        self._waiting.extend(json.loads(line) for line in lines)
