"""``--offline``: agentcli's own process cannot reach anything beyond this machine.

Covers: every connection, datagram and name look-up of Python code in this process, whichever
    library makes it: an audit hook of the interpreter refuses it before the system call. Loopback
    and sockets in the file system still work.
Does not cover: other processes. The commands of tools have the sandbox's network policy; offline
    turns ``allow`` and ``full`` into ``none``.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKING_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})

_users = 0
_hooked = False


class OfflineError(PermissionError):
    """A connection was refused. It is an OSError, as libraries expect from a network."""

    def __init__(self, host: str) -> None:
        super().__init__(errno.EPERM, f"offline: {host} is not on this machine")


def is_loopback(host: str) -> bool:
    """Whether the name or address itself says that a host is this machine; looks nothing up."""
    host = host.partition("%")[0].strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def active() -> bool:
    """Whether this process is offline now."""
    return _users > 0


@contextmanager
def enforced() -> Iterator[None]:
    """Keep the whole process offline inside the ``with`` block."""
    global _users, _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_audit)  # for good: an audit hook cannot be removed
    _users += 1
    try:
        yield
    finally:
        _users -= 1


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _users or not event.startswith("socket."):
        return
    if event in _CONNECTING:
        address = arguments[1]
        if not isinstance(address, tuple) or not isinstance(address[0], str):
            return  # a socket in the file system, or already connected
        host = address[0]
    elif event in _LOOKING_UP:
        host = arguments[0]
        if isinstance(host, bytes | bytearray):
            host = host.decode("latin-1")
        if not host:
            return
    else:
        return
    if not is_loopback(host) and host not in ("0.0.0.0", "::"):
        raise OfflineError(host)
