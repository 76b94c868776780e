"""The allowlist of hosts that a command may reach when the network policy is ``allow``.

An entry is a host (``pypi.org``), all hosts below a domain (``*.example.com``, without the domain
itself), an address or a range of addresses (``10.1.0.0/16``). Each may name one port
(``pypi.org:443``, ``[::1]:8000``); without one, it permits every port.

Covers: names and addresses outside the list; listed names that resolve to a private, loopback or
    link-local address (DNS rebinding), unless that address is listed too, or the name is
    ``localhost``.
Does not cover: what an allowed host does with the data it gets; who really answers behind TLS.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class _Entry:
    name: str
    addresses: Range | None
    port: int | None

    def names(self, host: str, port: int) -> bool:
        if self.port not in (None, port) or self.addresses is not None:
            return False
        if self.name.startswith("*."):
            return host.endswith(self.name[1:])
        return host == self.name

    def holds(self, address: Address, port: int, host: str) -> bool:
        if self.port not in (None, port):
            return False
        if self.addresses is None:
            # No other name may resolve to loopback, even if localhost is listed.
            own = host == "localhost" or address_of(host) is not None
            return self.name == "localhost" and address.is_loopback and own
        return address.version == self.addresses.version and address in self.addresses


class Destinations:
    """The parsed allowlist."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Parse the entries.

        Raises:
            ValueError: an entry is invalid; the message names it.
        """
        self._entries = [_parse(entry) for entry in entries]

    def permits(self, host: str, port: int) -> bool:
        """Whether the list permits the host, given as a name or an address."""
        address = address_of(host)
        if address is not None:
            return any(entry.holds(address, port, host) for entry in self._entries)
        return any(entry.names(normal(host), port) for entry in self._entries)

    def permits_address(self, text: str, port: int, host: str) -> bool:
        """Whether a permitted host may resolve to this address."""
        address = address_of(text)
        if address is None:
            return False
        if any(entry.holds(address, port, normal(host)) for entry in self._entries):
            return True
        return address.is_global and not address.is_multicast


def normal(host: str) -> str:
    """The canonical spelling of a name: lower case, no dot at the end, IDNA."""
    host = host.rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def address_of(host: str) -> Address | None:
    """Parse an address; None for a name.

    An IPv6 address that embeds an IPv4 one (mapped, 6to4, NAT64) becomes that IPv4 address, which
    is what a connection reaches in the end.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def split_port(text: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address into host and port.

    Raises:
        ValueError: the port is not a number from 1 to 65535.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text}: not a host and a port")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text}: a port is a number from 1 to 65535")
    return host, int(port)


def _parse(entry: str) -> _Entry:
    host, port = split_port(entry.strip())
    try:
        return _Entry("", ipaddress.ip_network(host, strict=False), port)
    except ValueError:
        pass
    name = normal(host)
    if not _NAME.fullmatch(name) or re.fullmatch(r"[0-9.]+", name):
        raise ValueError(
            f'"{entry}" is not a domain: write example.com, *.example.com, an address or a range'
        )
    return _Entry(name, None, port)
