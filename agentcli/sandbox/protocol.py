"""The frames between agentcli and its supervisor.

A frame is ``length, kind, number`` (big-endian u32, u8, u32) and a payload of ``length`` bytes;
``number`` identifies the command. agentcli sends SPAWN and TEMPLATE (an object, with descriptors as
SCM_RIGHTS), LINE (an object, for the last TEMPLATE; see ``ahead.py``) and KILL. The supervisor
sends READY, output, EXIT (an object) and FAULT (text, before it ends); MOUNTED is from
``overlay.py``.

Objects are marshalled: both ends are the same Python, no command can write to either, and importing
JSON would take a fifth of the supervisor's start.

An output frame is STDOUT or STDERR, perhaps with one mark: SAMPLE is for display only and not part
of the result, GAP says how many bytes were left out (a decimal number), TAIL follows a GAP.

Standard library only.
"""

from __future__ import annotations

import marshal
import struct

READY, STDOUT, STDERR, EXIT, FAULT = 1, 2, 3, 4, 5
SPAWN, KILL, TEMPLATE, LINE = 6, 7, 8, 9
MOUNTED = 10
SAMPLE, GAP, TAIL = 0x10, 0x20, 0x40
MARKS = SAMPLE | GAP | TAIL

_HEAD = struct.Struct("!IBI")
HEAD_BYTES = _HEAD.size
_LENGTH = struct.Struct("!I")

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def encode(kind: int, number: int, payload: bytes) -> bytes:
    """Encode one frame."""
    return _HEAD.pack(len(payload), kind, number) + payload


def head(data: bytes) -> tuple[int, int, int]:
    """Decode length, kind and number from the first HEAD_BYTES of a frame."""
    length, kind, number = _HEAD.unpack(data)
    return length, kind, number


def pack(value: Any) -> bytes:
    """Encode one object with its length, for a pipe that carries nothing else."""
    data = marshal.dumps(value)
    return _LENGTH.pack(len(data)) + data


def is_whole(data: bytes | bytearray) -> bool:
    """Whether all of a packed object has arrived."""
    return len(data) >= _LENGTH.size and len(data) - _LENGTH.size >= _LENGTH.unpack_from(data)[0]


def unpack(data: bytes | bytearray) -> Any:
    """The packed object, or None if it is incomplete."""
    return marshal.loads(data[_LENGTH.size :]) if is_whole(data) else None


class Decoder:
    """Splits a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Take more bytes; yields (kind, number, payload) of every complete frame."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, number, payload
