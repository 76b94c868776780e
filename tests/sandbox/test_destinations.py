"""The allowed domains: names, addresses, ports, and names that resolve to private addresses."""

from __future__ import annotations

import pytest

from agentcli.sandbox.destinations import Destinations

LIST = Destinations(
    [
        *("Example.com", "*.pypi.org", "10.1.0.0/16", "localhost:8000", "[::1]:9000"),
        *("bücher.example", "192.168.7.7:443"),
    ]
)


@pytest.mark.parametrize(
    ("host", "port", "permitted"),
    [
        ("example.com", 443, True),
        ("EXAMPLE.com.", 80, True),
        ("www.example.com", 443, False),
        ("notexample.com", 443, False),
        ("example.com.evil.org", 443, False),
        ("files.pypi.org", 443, True),
        ("a.b.pypi.org", 443, True),
        ("pypi.org", 443, False),
        ("evilpypi.org", 443, False),
        ("10.1.2.3", 22, True),
        ("::ffff:10.1.2.3", 22, True),
        ("10.2.0.1", 22, False),
        ("localhost", 8000, True),
        ("localhost", 8001, False),
        ("127.0.0.1", 8000, True),
        ("127.0.0.1", 22, False),
        ("::1", 9000, True),
        ("[::1]", 9000, True),
        ("::1", 22, False),
        ("xn--bcher-kva.example", 443, True),
        ("192.168.7.7", 443, True),
        ("192.168.7.7", 80, False),
        ("8.8.8.8", 443, False),
        ("2130706433", 8000, False),
    ],
)
def test_hosts(host: str, port: int, permitted: bool) -> None:
    assert LIST.permits(host, port) is permitted


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("10.0.0.5", False),
        ("10.1.0.5", True),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_where_a_listed_name_may_lead(address: str, permitted: bool) -> None:
    assert LIST.permits_address(address, 443, "example.com") is permitted


def test_localhost_is_no_way_in_for_other_names() -> None:
    assert LIST.permits_address("127.0.0.1", 8000, "localhost")
    assert LIST.permits_address("127.0.0.1", 8000, "127.0.0.1")
    assert not LIST.permits_address("127.0.0.1", 8000, "example.com")


@pytest.mark.parametrize(
    "entry",
    ["", "*", "a b", "http://example.com", "example.com:0", "example.com:x", "1.2.3", "a/b"],
)
def test_entries_that_cannot_be_read(entry: str) -> None:
    with pytest.raises(ValueError, match=r"domain|port"):
        Destinations([entry])
