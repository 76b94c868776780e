"""Web addresses, and the rules that allow or refuse them.

    fetch(docs.python.org)     this host          fetch(*.python.org)   all hosts below it
    fetch(localhost:8000)      with this port     fetch(10.0.0.0/8)     a range of addresses

Covers: hosts that no rule allows; names that resolve to a private, loopback or link-local address
    (DNS rebinding), unless a rule names that address or its range.
Does not cover: what an allowed host does with the data in a URL.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentcli.errors import ToolInputError
from agentcli.sandbox.destinations import Destinations, address_of, normal
from agentcli.tools.rules import Rule, Rules

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads. ``host`` is normalized and without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As written in rules: with the port only if it is not the scheme's default."""
        if self.port == _PORTS[self.scheme]:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_near(self) -> bool:
        """Whether the name alone says that it is this machine or its network."""
        address = address_of(self.host)
        if address is not None:
            return not address.is_global or address.is_multicast
        return self.host == "localhost" or self.host.endswith(".localhost")


def place_of(url: str) -> Place:
    """Parse a URL.

    Raises:
        ToolInputError: it is not a complete web address, or contains a user name or password.
    """
    try:
        parts = urlsplit(url.strip())
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise ToolInputError(f"{url}: {error}", path="url") from error
    if scheme not in _PORTS or not host or any(letter in url.strip() for letter in " \t\r\n\\"):
        raise ToolInputError(
            f"{url} is not a complete address, such as https://a.org/b", path="url"
        )
    if "@" in parts.netloc:
        raise ToolInputError("the address holds a name or a password: leave it out", path="url")
    return Place(scheme, normal(host), port or _PORTS[scheme])


def names_host(rule: Rule, place: Place) -> bool:
    """Whether a rule's pattern matches a host, given by name or address."""
    if rule.pattern is None:
        return True
    listed = _destinations(rule.pattern)
    return listed is not None and listed.permits(place.host, place.port)


def why_not(rules: Rules, tool: str, place: Place, address: str) -> str:
    """Why a host may not be reached at one of its addresses; empty if it may."""
    for rule in _about(rules.deny, tool):
        listed = _destinations(rule.pattern or "")
        if listed is not None and listed.permits(address, place.port):
            return f"{place} is at {address}, which the rule {rule} refuses"
    for rule in _about(rules.allow, tool):
        listed = _destinations(rule.pattern or "")
        if listed is not None and listed.permits_address(address, place.port, place.host):
            return ""
    if Destinations(()).permits_address(address, place.port, place.host):
        return ""
    return f"{place} is at {address}, within this network: {_needs(tool, address)}"


def near_refusal(rules: Rules, tool: str, place: Place) -> str:
    """Why a host that is near by its name may not be reached; empty if it may."""
    if not place.is_near or any(names_host(rule, place) for rule in _about(rules.allow, tool)):
        return ""
    return f"{place} is this machine or its network: {_needs(tool, str(place))}"


def _needs(tool: str, what: str) -> str:
    return f'only a rule that names it allows that: [permissions] allow = ["{tool}({what})"]'


def _about(listed: Iterable[Rule], tool: str) -> list[Rule]:
    return [rule for rule in listed if rule.pattern is not None and rule.names(tool)]


@functools.lru_cache(maxsize=512)
def _destinations(pattern: str) -> Destinations | None:
    """Parse a pattern; None for patterns meant for other tools, as in ``*(src/**)``."""
    try:
        return Destinations((pattern,))
    except ValueError:
        return None
