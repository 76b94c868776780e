"""The frames between agentcli and its supervisor.

A frame is ``length, kind, number`` (big-endian u32, u8, u32) and a payload of ``length`` bytes;
``number`` names the command. To the supervisor: SPAWN and TEMPLATE (JSON; descriptors travel
beside them as SCM_RIGHTS), LINE (JSON; for the last TEMPLATE, see ``ahead.py``) and KILL. From it:
READY, output, EXIT (JSON) and FAULT (text, before it ends).

An output frame is STDOUT or STDERR, perhaps with one mark: SAMPLE is for show and not part of the
result, GAP (its payload is a decimal number) says how many bytes were left out, TAIL follows it.

Standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

READY, STDOUT, STDERR, EXIT, FAULT = 1, 2, 3, 4, 5
SPAWN, KILL, TEMPLATE, LINE = 6, 7, 8, 9
SAMPLE, GAP, TAIL = 0x10, 0x20, 0x40
MARKS = SAMPLE | GAP | TAIL

_HEAD = struct.Struct("!IBI")


def encode(kind: int, number: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload), kind, number) + payload


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Take more bytes; yields (kind, number, payload) for every frame that is complete."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, number, payload
