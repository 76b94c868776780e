"""fetch, with a real server on loopback and the rules that limit it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from agentcli.environments.base import Nowhere
from agentcli.errors import ConfigError, ToolInputError
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.prompts import Prompts
from agentcli.tools.addresses import place_of, why_not
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolContext
from agentcli.tools.fetch import MOST_BYTES, fetch_tool
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry
from agentcli.tools.rules import Rules, check_rules, parse_rules

PAGE = """<html><head><title>Manual</title><style>p {}</style></head><body><nav>Menu</nav>
<main><h2>Usage</h2><script>evil()</script><p>Call <code>f()</code>, see
<a href="../b?c#d">there</a>.</p><ul><li>one</li></ul><img src="data:image/png;base64,AAAA"></main>
</body></html>"""
LONG = "".join(f"line {number}\n" for number in range(5000))
ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "/page/a": (200, "text/html; charset=utf-8", PAGE.encode()),
    "/latin": (200, "text/html", '<meta charset="latin-1"><p>Größe</p>'.encode("latin-1")),
    "/json": (200, "application/json", b'{"a": [1, 2]}'),
    "/long": (200, "text/plain", LONG.encode()),
    "/deep": (200, "text/html", b"<div>" * 5000 + b"deep" + b"</div>" * 5000),
    "/picture": (200, "image/png", b"\x89PNG\0"),
    "/zeros": (200, "text/plain", b"a\0b"),
    "/large": (200, "text/plain", b"x" * (MOST_BYTES + 1)),
    "/empty": (200, "text/plain", b""),
    "/gone": (404, "text/plain", b"gone"),
}


class Handler(BaseHTTPRequestHandler):
    seen: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.seen.append(f"{self.headers['Host']} {self.path}")
        where = {"/moved": "/json", "/round": "/round", "/away": "http://localhost:1/x"}
        if self.path in where:
            self.send_response(302)
            self.send_header("Location", where[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, kind, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    class Own(Handler):
        seen: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    with serving() as given:
        yield given


Fetch = Callable[..., Awaitable[ToolResult]]


def fetching(permissions: ModePermissions) -> Fetch:
    registry = Registry([fetch_tool(Prompts.standard(), lambda: permissions.rules)], permissions)
    check_rules(permissions.rules, registry.specs)

    async def fetch(url: str, **more: Any) -> ToolResult:
        call = ToolCall("1", "fetch", json.dumps({"url": url, **more}))
        return await registry.dispatch(call, ToolContext(Nowhere()))

    return fetch


@pytest.fixture
def fetch() -> Fetch:
    return fetching(ModePermissions(Mode.AUTO, rules=parse_rules(["fetch(127.0.0.1)"])))


async def test_a_page_comes_as_markdown(server: tuple[str, list[str]], fetch: Fetch) -> None:
    url, _ = server
    result = await fetch(f"{url}/page/a#part")
    head, _, text = result.content.partition("\n")
    size = len(text)
    assert head == f"[{url}/page/a: HTML as Markdown; characters 0 to {size} of {size}]"
    assert text == (
        f"# Manual\n\n## Usage\n\nCall `f()`, see\n[there]({url}/b?c#d).\n\n- one\n\n![]()"
    )
    assert "Größe" in (await fetch(f"{url}/latin")).content


async def test_text_and_json_come_as_they_are(server: tuple[str, list[str]], fetch: Fetch) -> None:
    url, _ = server
    assert (await fetch(f"{url}/json")).content.endswith('of 13]\n{"a": [1, 2]}')
    assert "it is empty" in (await fetch(f"{url}/empty")).content
    assert (await fetch(f"{url}/deep")).content.endswith("deep")


async def test_a_long_page_comes_in_parts(server: tuple[str, list[str]], fetch: Fetch) -> None:
    url, seen = server
    text, start = "", 0
    seen.clear()
    while start < len(LONG):
        content = (await fetch(f"{url}/long", start=start)).content
        head, _, part = content.partition("\n")
        text += part
        start += len(part)
        assert (f"go on with start={start}" in head) == (start < len(LONG))
    assert text == LONG
    assert len(seen) == 1, "parts of one answer"
    assert "it has" in (await fetch(f"{url}/long", start=10**9)).content


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/picture", "is not text but image/png"),
        ("/zeros", "is not text"),
        ("/large", "is larger than 2 MiB"),
        ("/gone", "answered 404 Not Found"),
        ("/round", "more than 5 redirects"),
    ],
)
async def test_what_cannot_be_fetched(
    path: str, why: str, server: tuple[str, list[str]], fetch: Fetch
) -> None:
    result = await fetch(server[0] + path)
    assert result.outcome is Outcome.ERROR and why in result.content


async def test_a_redirect_is_followed_on_the_same_host_only(
    server: tuple[str, list[str]], fetch: Fetch
) -> None:
    url, seen = server
    assert f"[{url}/json:" in (await fetch(f"{url}/moved")).content
    assert (await fetch(f"{url}/away")).content == (
        f"{url}/away redirects to http://localhost:1/x, another host: fetch that"
    )
    assert seen[-1].endswith("/away")


async def test_nothing_is_free_by_mode_alone(server: tuple[str, list[str]]) -> None:
    url, seen = server
    seen.clear()
    for mode in Mode:
        result = await fetching(ModePermissions(mode))("https://docs.python.org/3/?q=secret")
        assert result.outcome is Outcome.DENIED
        advice = 'no rule allows it: [permissions] allow = ["fetch(docs.python.org)"]'
        assert result.content.endswith(f"nobody can be asked: {advice}")
    broad = fetching(ModePermissions(Mode.AUTO, rules=parse_rules(["fetch"])))
    for near in (url, url.replace("127.0.0.1", "localhost"), "http://[::1]/", "http://10.1.2.3/"):
        result = await broad(near)
        assert result.outcome is Outcome.DENIED
        assert "only a rule that names it allows that" in result.content
    denied = parse_rules(["fetch"], deny=["fetch(*.python.org)"])
    result = await fetching(ModePermissions(Mode.AUTO, rules=denied))("https://docs.python.org/")
    assert result.content == "denied: the rule fetch(*.python.org) refuses docs.python.org"
    assert seen == []


async def test_the_user_may_allow_a_host(server: tuple[str, list[str]]) -> None:
    asked: list[Approval] = []

    async def ask(approval: Approval) -> Reply:
        asked.append(approval)
        return Reply(Answer.SESSION)

    permissions = ModePermissions(Mode.PLAN, ask)
    tool = fetch_tool(Prompts.standard(), lambda: permissions.rules)
    for path in ("a", "b"):
        url = f"https://docs.python.org:8443/{path}"
        assert await permissions.permit(tool.spec, ToolCall("1", "fetch"), {"url": url}) is None
    assert [str(one.rule) for one in asked] == ["fetch(docs.python.org:8443)"]


async def test_a_name_that_leads_into_the_network_is_refused(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the name lookup is simulated here."""
    url, seen = server
    port = place_of(url).port

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    seen.clear()
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://docs.example.com:{port}/json"
    rules = parse_rules(["fetch(*.example.com)"])
    result = await fetching(ModePermissions(Mode.AUTO, rules=rules))(url)
    assert result.outcome is Outcome.ERROR and "is at 127.0.0.1, within" in result.content
    assert seen == []
    rules += parse_rules(["fetch(127.0.0.0/8)"])
    result = await fetching(ModePermissions(Mode.AUTO, rules=rules))(url)
    assert result.outcome is Outcome.OK, result.content
    assert seen == [f"docs.example.com:{port} /json"], "asked for by its name"
    rules += parse_rules(deny=["fetch(127.0.0.1)"])
    result = await fetching(ModePermissions(Mode.AUTO, rules=rules))(url)
    assert "which the rule fetch(127.0.0.1) refuses" in result.content


@pytest.mark.parametrize(
    "url",
    [
        *("docs.python.org", "ftp://a.org/", "http://u:p@a.org/", "http://a.org:x/", "http:///a"),
        *("", "http://a.org\\@b.org/", "http://[::1/", "file:///etc/passwd"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ToolInputError):
        place_of(url)


def test_other_spellings_of_an_address_are_looked_up() -> None:
    place = place_of("http://2130706433/")
    assert why_not(Rules(), "fetch", place, "127.0.0.1")
    assert why_not(Rules(), "fetch", place, "169.254.169.254")
    assert why_not(Rules(), "fetch", place, "::ffff:10.0.0.1")
    assert not why_not(Rules(), "fetch", place, "93.184.215.14")


def test_patterns_that_are_no_hosts() -> None:
    spec = fetch_tool(Prompts.standard(), Rules).spec
    with pytest.raises(ConfigError, match=r"the rule fetch\(a/b\): .* is not a domain"):
        check_rules(parse_rules(["fetch(a/b)"]), [spec])
    check_rules(parse_rules(deny=["*(src/**)"]), [spec])
