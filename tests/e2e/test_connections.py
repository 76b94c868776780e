"""A run contacts nothing but the configured provider; all of its processes are watched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.running import BIN, Cli
from tests.server import Reply

_WATCH = """
import json, os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        told = arguments[-1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        told = ["looked up", *map(str, arguments[:2])]
    else:
        return
    if told and not isinstance(told, (str, bytes)):
        descriptor = os.open(PLACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, (json.dumps(list(told)) + "\\n").encode())
        os.close(descriptor)

sys.addaudithook(watch)
"""
_ADDRESS = re.compile(
    r"sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
)

Watched = Callable[[list[str], Cli, Path], set[tuple[str, int]]]


def by_audit(command: list[str], cli: Cli, folder: Path) -> set[tuple[str, int]]:
    """The addresses that agentcli's Python processes connect to or look up."""
    place = folder / "connections"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(f"PLACE = {str(place)!r}\n{_WATCH}")
    cli.extra = {"PYTHONPATH": str(folder / "site")}
    subprocess.run(command, env=cli.env, cwd=cli.home, check=True, capture_output=True)
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    return {(str(host), int(port)) for *_, host, port in lines if host}


def by_strace(command: list[str], cli: Cli, folder: Path) -> set[tuple[str, int]]:
    """The addresses that any process of the run passes to a system call."""
    log = folder / "calls"
    watched = ["strace", "-f", "-o", str(log), "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    subprocess.run([*watched, *command], env=cli.env, cwd=cli.home, check=True, capture_output=True)
    found = _ADDRESS.findall(log.read_text(errors="replace"))
    return {(host, int(port)) for port, host in found}


WATCHES = [
    by_audit,
    pytest.param(
        by_strace,
        marks=pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
    ),
]


@pytest.mark.parametrize("watched", WATCHES)
def test_a_run_contacts_its_provider_and_nobody_else(
    watched: Watched, cli: Cli, serve: Serve, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "a.txt").write_text("a\n")
    calls = [
        ("write_file", {"path": "b.txt", "content": "b\n"}),
        ("shell", {"command": "cat a.txt b.txt"}),
        ("grep", {"pattern": "a"}),
    ]
    server = serve([Reply(calls=calls), Reply(text="Done.")])
    cli.server = server.url
    # A model with a known price and context window, so that the run looks up both.
    options = [
        "--model",
        "openai:gpt-4o",
        "--workspace",
        str(workspace),
        "--check",
        "test -e b.txt",
    ]
    command = [str(BIN / "agentcli"), "run", "-p", "Write b.txt.", *options]
    assert watched(command, cli, tmp_path) == {("127.0.0.1", server.port)}
    assert (workspace / "b.txt").read_text() == "b\n" and len(server.requests) == 2


@pytest.mark.parametrize("watched", WATCHES)
def test_the_watch_sees_what_is_contacted(
    watched: Watched, cli: Cli, serve: Serve, tmp_path: Path
) -> None:
    server = serve([])
    script = f"import socket; socket.create_connection(('127.0.0.1', {server.port})).close()"
    command = [str(BIN / "python"), "-c", script]
    assert ("127.0.0.1", server.port) in watched(command, cli, tmp_path)
