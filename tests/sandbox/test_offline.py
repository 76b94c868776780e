"""Offline mode: no connection of this process leaves the machine, whatever makes it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.llm.transport import http_client
from agentcli.sandbox import offline
from agentcli.settings import Settings
from agentcli.wiring import open_agent
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

OUTSIDE = "192.0.2.1"  # reserved for documentation, unreachable


def test_nothing_leaves_and_loopback_stays() -> None:
    with offline.enforced(), socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        socket.getaddrinfo("localhost", 80)
        one, other = socket.socketpair()
        one.sendmsg([b"x"])
        one.close()
        other.close()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for attempt in (
            lambda: socket.create_connection((OUTSIDE, 443), 1),
            lambda: socket.getaddrinfo("example.org", 443),
            lambda: socket.gethostbyname("example.org"),
            lambda: datagrams.sendto(b"x", (OUTSIDE, 53)),
            lambda: urllib.request.urlopen(f"http://{OUTSIDE}/", timeout=1),
        ):
            with pytest.raises(OSError, match=r"offline: .* is not on this machine"):
                attempt()
        datagrams.close()
    assert not offline.active()


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("api.localhost", True),
        ("localhost.evil.org", False),
        ("10.0.0.1", False),
        ("fe80::1%lo", False),
        ("127.0.0.1.evil.org", False),
    ],
)
def test_what_is_on_this_machine(host: str, here: bool) -> None:
    assert offline.is_loopback(host) is here


async def test_a_client_for_another_machine_is_not_even_made() -> None:
    with offline.enforced():
        await http_client("http://127.0.0.1:1/v1", 1).aclose()
        with pytest.raises(Exception, match=r"offline: https://api\.example\.org/v1") as caught:
            http_client("https://api.example.org/v1", 1)
    assert getattr(caught.value, "exit_code", None) == 2


async def test_no_other_machine_is_worked_on(workspace: Path) -> None:
    settings = Settings(offline=True, env="ssh:far")
    with pytest.raises(ConfigError, match="offline: ssh:far is another machine"):
        async with open_agent(settings, workspace=workspace, model="openai:m"):
            pass


RECORD = """
import json, sys
seen = []
def record(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        seen.append(arguments[1][0])
    elif event == "socket.getaddrinfo":
        seen.append(str(arguments[0]))
sys.addaudithook(record)
from agentcli.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, seen]))
"""


def test_a_run_reaches_this_machine_only(cli: Cli, serve: Serve, workspace: Path) -> None:
    """Every connection that a whole run attempts is recorded, including refused ones."""
    server = serve([Reply("done")])
    cli.server = server.url
    command = [sys.executable, "-c", RECORD, "run", "-p", "hi", "--model", "openai:m", "--offline"]
    ended = subprocess.run(
        command,
        cwd=workspace,
        env=cli.env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    code, seen = json.loads(ended.stdout.splitlines()[-1])
    assert code == 0, ended.stderr
    assert seen and {host for host in seen if not offline.is_loopback(host)} == set()
