"""The engine process's end of its socket: lines of JSON, read ahead."""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from typing import Any

STARTS = ("generate", "complete", "check")


class Closed(Exception):
    """The other side has gone."""


class Wire:
    """Lines of JSON over a socket, read ahead so that a cancellation is seen while decoding."""

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
        """The next message, or the next of this kind and id; others keep their places."""
        while True:
            for at, message in enumerate(self._waiting):
                if not op or (message["op"] == op and message.get("id") == number):
                    del self._waiting[at]
                    return message
            self._read()

    def cancelled(self, number: int) -> bool:
        """Whether this request is to stop. Takes what has come in, and does not wait."""
        while select.select([self._link], [], [], 0)[0]:
            self._read()
        return any(m["op"] == "cancel" and m["id"] == number for m in self._waiting)

    def forget(self, number: int) -> None:
        """Drop what is left of a request that has ended."""
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
