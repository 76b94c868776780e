"""Stand-ins for standard modules that take longer to import than all of the supervisor's own.

``signal`` and ``socket`` turn about a hundred constants into enumerations when they are imported,
which is a quarter of the supervisor's start. CPython's C modules below them have the same names.
``contextlib`` is needed for one class only, and imports ``collections`` and ``functools``.

Standard library only.
"""

from __future__ import annotations

import struct
from _socket import CMSG_LEN, SCM_RIGHTS, SOL_SOCKET, socket

TYPE_CHECKING = False  # type checkers know the name; importing typing takes a tenth of the start
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["recv_fds", "send_fds", "signal", "suppress"]


class suppress:
    """``contextlib.suppress``."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, self._errors)


_INT = struct.calcsize("i")


def send_fds(link: socket, data: memoryview, fds: list[int]) -> int:
    """Send descriptors with some of the bytes; returns how many bytes. Raises OSError."""
    return link.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))])


def recv_fds(link: socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive bytes, none at the end, and the descriptors sent with them. Raises OSError."""
    data, beside, _, _ = link.recvmsg(size, CMSG_LEN(most * _INT))
    fds: list[int] = []
    for level, kind, packed in beside:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            count = len(packed) // _INT
            fds += struct.unpack(f"{count}i", packed[: count * _INT])
    return data, fds
