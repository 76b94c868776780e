"""MCP servers: their tools in the registry, and every way in which they can fail."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agentcli.errors import ConfigError, ToolError
from agentcli.image_formats import MAX_BYTES
from agentcli.messages import Image, Outcome, ToolCall, ToolResult
from agentcli.sandbox import bwrap
from agentcli.settings import McpServerSettings
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.mcp import transport
from agentcli.tools.mcp.references import Prompt, arguments_of, resources_named
from agentcli.tools.mcp.servers import McpServers, project_servers
from agentcli.tools.mcp.tools import tool_name
from agentcli.tools.registry import Registry
from tests.test_images import GIF, jpeg, png
from tests.tools.mcp_server import told

SMALL = (sys.executable, "-I", str(Path(__file__).with_name("mcp_server.py")))
WRONG = ("env", "TOOLS=many", *SMALL)
REFUSING = ("env", "ERA=refusing", *SMALL)
NODE = Path(__file__).resolve().parents[2] / ".venv" / "npm" / "node_modules" / ".bin"

SDK = (sys.executable, str(Path(__file__).with_name("mcp_sdk_server.py")))

Settings = McpServerSettings


def offering(*tools: Mapping[str, object]) -> Settings:
    """The small server with further tools."""
    return Settings(command=SMALL, env={"MORE_TOOLS": json.dumps(tools)})


@asynccontextmanager
async def opened(
    folder: Path, environ: Mapping[str, str] | None = None, **servers: McpServerSettings
) -> AsyncIterator[McpServers]:
    found = McpServers(
        servers, folder=str(folder), cache=folder / "cache", environ=environ or os.environ
    )
    try:
        yield found
    finally:
        await found.aclose()


async def call(
    servers: McpServers, context: ToolContext, name: str, /, **arguments: object
) -> ToolResult:
    registry = Registry(await servers.tools())
    return await registry.dispatch(ToolCall("1", name, json.dumps(arguments)), context)


async def test_a_servers_tools_take_the_dispatch_path(tmp_path: Path, context: ToolContext) -> None:
    async with opened(tmp_path, small=Settings(command=SMALL)) as servers:
        kinds = {tool.spec.name: tool.spec.kind for tool in await servers.tools()}
        assert kinds["mcp__small__add"] is ToolKind.READ  # from its annotations
        assert kinds["mcp__small__fail"] is ToolKind.RUN
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        wrong = await call(servers, context, "mcp__small__add", a="two", b=3)
        assert wrong.outcome is Outcome.ERROR and '"a"' in wrong.content
        failed = await call(servers, context, "mcp__small__fail")
        assert failed.outcome is Outcome.ERROR and "it had to fail" in failed.content
        assert servers.notices == []


async def test_what_a_server_says_of_its_tools_decides_what_they_need(tmp_path: Path) -> None:
    hints = {"readOnlyHint": True, "openWorldHint": True}
    look = {"name": "look", "inputSchema": {"type": "object"}, "annotations": hints}
    for _ in ("asked", "remembered"):
        async with opened(tmp_path, small=offering(look)) as servers:
            specs = {tool.spec.name: tool.spec for tool in await servers.tools()}
        found = {name: (spec.kind, spec.outward) for name, spec in specs.items()}
        assert found["mcp__small__look"] == (ToolKind.READ, True)
        assert found["mcp__small__add"] == (ToolKind.READ, False)


@pytest.mark.parametrize("era", ["strict", "new"])
async def test_programs_of_each_protocol(era: str, tmp_path: Path, context: ToolContext) -> None:
    async with opened(tmp_path, small=Settings(command=SMALL, env={"ERA": era})) as servers:
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        assert servers.notices == []


async def test_resources_and_prompts(tmp_path: Path, context: ToolContext) -> None:
    async with opened(tmp_path, small=Settings(command=SMALL)) as servers:
        listed = await call(servers, context, "mcp_resource", server="small")
        assert listed.content == "note://today: note\nnote://{day}: of a day"
        read = await call(servers, context, "mcp_resource", server="small", uri="note://today")
        assert read.content == "buy milk"
        assert await servers.prompt("small", "review", {"what": "a.py"}) == "Please review a.py."
        with pytest.raises(ToolError, match="there is no MCP server other"):
            await servers.read("other", "note://today")


async def test_what_a_user_names_of_servers(tmp_path: Path, context: ToolContext) -> None:
    bad = Settings(command=("false",))
    async with opened(tmp_path, small=Settings(command=SMALL), bad=bad) as servers:
        registry = Registry(await servers.tools())
        assert await servers.resources() == [("small", "note://today", "note")]
        assert [(server, one.name) for server, one in servers.prompts()] == [("small", "review")]
        assert await servers.expanded("/small:review a.py and b.py") == (
            "Please review a.py and b.py."
        )
        assert await servers.expanded('/small:review what="the whole"') == (
            "Please review the whole."
        )
        for text in ("/nobody:review a.py", "/etc/hosts", "Say /small:review"):
            assert await servers.expanded(text) == text
        with pytest.raises(ToolError, match="review: what is missing; it takes what"):
            await servers.expanded("/small:review")
        with pytest.raises(ToolError, match="has no prompt revue; there are: review"):
            await servers.expanded("/small:revue a.py")
        with pytest.raises(ToolError, match="MCP server bad: ended with exit code 1"):
            await servers.expanded("/bad:review a.py")
        (read,) = servers.mentioned("As @small:note://today, @bad:x://y and @nobody:x://y say.")
        assert (await registry.dispatch(read, context)).content == "buy milk"
    # What a server offers is cached, so reading a text needs no connection.
    async with opened(tmp_path, small=Settings(command=SMALL)) as servers:
        await servers.tools()
        assert servers.mentioned("@small:note://today") and servers.prompts()
        assert not servers.servers["small"].connected


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("read @s:note://today.", ["note://today"]),
        ("(@s:note://today), @s:note://today!", ["note://today"]),
        ("@s:wiki://Set_(mathematics) and more", ["wiki://Set_(mathematics)"]),
        ("see '@s:a:b?'", ["a:b"]),
        ("me@s:note://today, @other:note://today, @s: it, @s:.", []),
    ],
)
def test_mentions_end_where_the_sentence_goes_on(text: str, uris: list[str]) -> None:
    assert [uri for _, uri in resources_named(text, ["s"])] == uris


def test_arguments_of_a_prompt() -> None:
    prompt = Prompt("p", "", (("where", True), ("how", False)))
    assert prompt.usage == "where [how]"
    assert arguments_of(prompt, "here") == {"where": "here"}
    assert arguments_of(prompt, "here as it is") == {"where": "here", "how": "as it is"}
    assert arguments_of(prompt, "how=so 'over there'") == {"how": "so", "where": "over there"}
    for text, why in (("how=so", "where is missing"), ("'a", "p: no closing quotation")):
        with pytest.raises(ToolError, match=why):
            arguments_of(prompt, text)
    with pytest.raises(ToolError, match='nothing is known of "x"; it takes no arguments'):
        arguments_of(Prompt("p"), "x")


async def test_a_server_sees_no_variable_but_those_it_is_given(
    tmp_path: Path, context: ToolContext
) -> None:
    environ = {**os.environ, "OPENAI_API_KEY": "sk-secret", "MINE": "filled"}
    small = Settings(command=SMALL, env={"GIVEN": "${MINE} ${ABSENT:-default}"})
    async with opened(tmp_path, environ, small=small) as servers:
        secret = await call(servers, context, "mcp__small__variable", name="OPENAI_API_KEY")
        assert secret.content == "unset"
        given = await call(servers, context, "mcp__small__variable", name="GIVEN")
        assert given.content == "filled default"


async def test_what_a_server_has_is_remembered_and_it_starts_when_first_called(
    tmp_path: Path, context: ToolContext
) -> None:
    small = Settings(command=SMALL)
    async with opened(tmp_path, small=small) as servers:
        first = [tool.spec for tool in await servers.tools()]
    async with opened(tmp_path, small=small) as servers:
        assert [tool.spec for tool in await servers.tools()] == first
        assert not servers.servers["small"].connected
        assert (await call(servers, context, "mcp__small__add", a=1, b=1)).content == "2"
        assert servers.servers["small"].connected
    (kept,) = (tmp_path / "cache").glob("*.json")
    empty = {"tools": [], "prompts": [], "resources": True, "instructions": ""}
    kept.write_text(json.dumps(empty))
    async with opened(tmp_path, small=small) as servers:
        assert [tool.spec.name for tool in await servers.tools()] == ["mcp_resource"]
        assert (await servers.read("small", "note://today")).content == "buy milk"
        assert "other tools than when last seen" in servers.notices[0]
    async with opened(tmp_path, small=small) as servers:
        assert [tool.spec for tool in await servers.tools()] == first


async def test_a_dead_server_is_reported_once_and_restarted(
    tmp_path: Path, context: ToolContext
) -> None:
    async with opened(tmp_path, small=Settings(command=SMALL)) as servers:
        died = await call(servers, context, "mcp__small__die")
        assert died.outcome is Outcome.ERROR
        assert died.content == "error: MCP server small: ended with exit code 7: out of luck"
        assert (await call(servers, context, "mcp__small__add", a=1, b=1)).content == "2"


async def test_a_slow_call_times_out_and_the_server_continues(
    tmp_path: Path, context: ToolContext
) -> None:
    async with opened(tmp_path, small=Settings(command=SMALL)) as servers:
        registry = Registry(await servers.tools())
        small = servers.servers["small"]
        small.settings = Settings(command=SMALL, timeout_s=1.0)
        slow = ToolCall("1", "mcp__small__sleep", '{"seconds": 60}')
        late = await registry.dispatch(slow, context)
        assert late.content == "error: MCP server small: did not answer within 1 s"
        small.settings = Settings(command=SMALL)  # a busy machine may need more than 1 s to add
        quick = ToolCall("2", "mcp__small__add", '{"a": 1, "b": 1}')
        assert (await registry.dispatch(quick, context)).content == "2"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("not-there-at-all",), "not-there-at-all was not found"),
        (("sh", "-c", "echo no licence >&2; exit 3"), "ended with exit code 3: no licence"),
        (("sleep", "60"), "was not ready within 0.7 s"),
        (("yes",), "writes what is not JSON-RPC"),
        (("cat", "/dev/zero"), "sent a line of over 16 MiB"),
        (("sh", "-c", "echo $MISSING ${MISSING}"), "the variable MISSING is not set"),
        (("sh", "-c", "exec >&-; sleep 60"), "closed its output"),
        (REFUSING, "MCP server bad: no such method"),
        (WRONG, "answers what is not MCP: tools: Input should be a valid list"),
    ],
)
async def test_an_unavailable_server_costs_one_line(
    command: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    # Only "sleep" should time out; the flood takes a while to exceed its limit.
    patience = 0.7 if command[0] == "sleep" else 60.0
    bad = Settings(command=command, startup_timeout_s=patience)
    async with opened(tmp_path, bad=bad, small=Settings(command=SMALL)) as servers:
        names = [tool.spec.name for tool in await servers.tools()]
        assert "mcp__small__add" in names
        assert not any("bad" in name for name in names)
        (notice,) = servers.notices
        assert notice.startswith("MCP server bad: ") and complaint in notice


async def test_an_address_is_named_as_it_is_written(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # reserved, but nothing listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/${{PLACE:-mcp}}"
        async with opened(tmp_path, bad=Settings(url=url)) as servers:
            await servers.tools()
            (notice,) = servers.notices
    assert notice.startswith(f"MCP server bad: {url}: ")


async def test_a_tool_that_cannot_be_offered_is_left_out(
    tmp_path: Path, context: ToolContext
) -> None:
    nothing = {"type": "object", "properties": {}}
    lost = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    server = offering(
        {"name": "do.it", "inputSchema": nothing},
        {"name": "do_it", "inputSchema": nothing},
        {"name": "lost", "inputSchema": lost},
        {"name": "task", "inputSchema": nothing, "execution": {"taskSupport": "required"}},
    )
    async with opened(tmp_path, small=server) as servers:
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        names = [tool.spec.name for tool in await servers.tools()]
        assert names.count("mcp__small__do_it") == 1
        assert not {"mcp__small__lost", "mcp__small__task"} & set(names)
        assert servers.notices[:2] == [
            "MCP server small: left out: tool mcp__small__do_it: another one has this name",
            "MCP server small: left out: tool mcp__small__lost: not a JSON Schema: "
            "Pointer '/$defs/A' does not exist",
        ]


async def test_a_malformed_tool_leaves_the_others(tmp_path: Path, context: ToolContext) -> None:
    nothing = {"type": "object", "properties": {}}
    server = offering({"name": "bad", "inputSchema": 5}, {"inputSchema": nothing})
    async with opened(tmp_path, small=server) as servers:
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        assert [one.split(":")[:3] for one in servers.notices] == [
            ["MCP server small", " left out", " tool bad"],
            ["MCP server small", " left out", " a tool"],
        ]


async def test_a_list_without_end(tmp_path: Path, context: ToolContext) -> None:
    server = Settings(command=SMALL, env={"ENDLESS": "1"})
    async with opened(tmp_path, small=server) as servers:
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        assert servers.notices == []


async def test_of_many_faults_only_some_are_told(tmp_path: Path, context: ToolContext) -> None:
    server = offering(*({"name": f"bad{number}"} for number in range(100)))
    async with opened(tmp_path, small=server) as servers:
        assert (await call(servers, context, "mcp__small__add", a=2, b=3)).content == "5"
        assert len(servers.notices) == 6
        assert servers.notices[-1] == "MCP server small: 95 more tools or prompts are left out"


async def test_what_the_model_reads_of_a_result(tmp_path: Path, context: ToolContext) -> None:
    text = {"uri": "x://1", "mimeType": "text/plain", "blob": "Y2Fmw6k="}
    link = {"uri": "x://2", "name": "b.txt", "description": "The second one"}
    content = [
        {"type": "text", "text": "Found:"},
        {"type": "resource", "resource": text},
        {"type": "resource_link", **link},
        {"type": "image", "mimeType": "image/png", "data": "AAAA"},
    ]
    server = offering({"name": "parts", "inputSchema": {"type": "object"}})
    async with opened(tmp_path, small=server) as servers:
        result = await call(servers, context, "mcp__small__parts", content=content)
        assert result.content.splitlines() == [
            "Found:",
            "café",
            "[resource x://2: The second one]",
            "[image/png, 3 bytes]",
        ]


def picture(data: bytes, kind: str = "image/png") -> dict[str, str]:
    return {"type": "image", "mimeType": kind, "data": base64.b64encode(data).decode()}


async def test_images_of_a_result_are_kept(tmp_path: Path, context: ToolContext) -> None:
    """Their content decides what they are; what no model accepts is described in a line."""
    embedded = {"uri": "x://1", "blob": base64.b64encode(png()).decode()}
    content = [
        {"type": "text", "text": "Found:"},
        picture(png(640, 3), "image/jpeg"),
        {"type": "resource", "resource": embedded},
        picture(b"<svg/>", "image/svg+xml"),
        picture(jpeg(9000, 2)),
        picture(png()[:20]),
        picture(GIF + bytes(MAX_BYTES)),
        picture(GIF),
    ]
    server = offering({"name": "parts", "inputSchema": {"type": "object"}})
    async with opened(tmp_path, small=server) as servers:
        result = await call(servers, context, "mcp__small__parts", content=content)
        failed = await call(
            servers, context, "mcp__small__parts", content=[picture(GIF)], isError=True
        )
        many = await call(servers, context, "mcp__small__parts", content=[picture(GIF)] * 21)
    assert result.content.splitlines() == [
        "Found:",
        "[image parts.png: PNG, 640x3, 95 bytes]",
        f"[image parts-2.png: PNG, 2x2, {len(png())} bytes]",
        "[image/svg+xml, 6 bytes]",
        "[image parts-3.jpeg: JPEG, 9000x2, 23 bytes; "
        "not shown: models accept at most 8,000 pixels a side]",
        "[image parts-4.png: PNG, 20 bytes; not shown: it is damaged]",
        "[image parts-5.gif: GIF, 1x1, 3,900,037 bytes; "
        "not shown: 3.9 MB is more than the 3.9 MB that models accept]",
        "[image parts-6.gif: GIF, 1x1, 37 bytes]",
    ]
    assert result.images == (
        Image(png(640, 3), "image/png", "parts.png"),
        Image(png(), "image/png", "parts-2.png"),
        Image(GIF, "image/gif", "parts-6.gif"),
    )
    assert (failed.outcome, failed.content) == (
        Outcome.ERROR,
        "error: [image parts.gif: GIF, 1x1, 37 bytes]",
    )
    assert failed.images == (Image(GIF, "image/gif", "parts.gif"),)
    assert len(many.images) == 20 and many.content.endswith("not shown: only the first 20 are]")


async def test_a_resource_that_is_an_image(tmp_path: Path, context: ToolContext) -> None:
    small = Settings(command=SMALL, env={"IMAGE": base64.b64encode(png()).decode()})
    async with opened(tmp_path, small=small) as servers:
        uri = "x://shots/page.png?big"
        read = await call(servers, context, "mcp_resource", server="small", uri=uri)
    assert read.content == f"[image page.png: PNG, 2x2, {len(png())} bytes]"
    assert read.images == (Image(png(), "image/png", "page.png"),)


async def test_a_description_keeps_its_lines(tmp_path: Path) -> None:
    lines = "Thinks.\n\n- " + "\n- ".join(["of this and that"] * 100)
    described = {"name": "think", "description": lines, "inputSchema": {"type": "object"}}
    endless = {**described, "name": "more", "description": "x" * 5000}
    async with opened(tmp_path, small=offering(described, endless)) as servers:
        told = {tool.spec.name: tool.spec.description for tool in await servers.tools()}
    assert told["mcp__small__think"] == lines
    assert len(told["mcp__small__more"]) == 4000


async def test_a_server_that_keeps_failing_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, bad=Settings(command=("false",))) as servers:
        for _ in range(3):
            with pytest.raises(ToolError, match="exit code 1"):
                await servers.read("bad", "x://y")
        with pytest.raises(ToolError, match="failed 3 times and is left alone"):
            await servers.read("bad", "x://y")


async def test_no_process_is_left_behind(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    line = f"sleep 600 & echo $! > {mark}; exec {' '.join(SMALL)}"
    async with opened(tmp_path, small=Settings(command=("sh", "-c", line))) as servers:
        await servers.tools()
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.kill(int(mark.read_text()), 0)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def sdk_server(*arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The SDK's server and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = await asyncio.create_subprocess_exec(*SDK, str(port), *arguments)
    try:
        url = f"http://127.0.0.1:{port}"
        await _listening(f"{url}/mcp")
        yield url, server
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def test_over_http(tmp_path: Path, context: ToolContext) -> None:
    async with (
        sdk_server() as (url, _),
        opened(tmp_path, far=Settings(url=f"{url}/mcp")) as servers,
    ):
        assert (await call(servers, context, "mcp__far__add", a=2, b=2)).content == "4"
        assert (await servers.read("far", "note://today")).content == "buy milk"
        shot = await call(servers, context, "mcp__far__shot")
        assert shot.content == "The page:\n[image shot.gif: GIF, 1x1, 37 bytes]"
        assert shot.images == (Image(GIF, "image/gif", "shot.gif"),)


async def test_over_the_older_sse(tmp_path: Path, context: ToolContext) -> None:
    async with sdk_server("sse") as (url, server):
        wrong, right = Settings(url=f"{url}/sse"), Settings(url=f"{url}/sse", type="sse")
        async with opened(tmp_path, wrong=wrong, far=right) as servers:
            assert (await call(servers, context, "mcp__far__add", a=2, b=2)).content == "4"
            assert (await servers.read("far", "note://today")).content == "buy milk"
            assert servers.notices == [
                f"MCP server wrong: {url}/sse: answers 405 Method Not Allowed"
            ]
            server.kill()
            await server.wait()
            gone = await call(servers, context, "mcp__far__add", a=2, b=2)
            assert f"{url}/sse: All connection attempts failed" in gone.content


class Forgetful(BaseHTTPRequestHandler):
    """An HTTP server that accepts only the session id ``session``."""

    protocol_version = "HTTP/1.1"
    session = "first"
    refusal = 404

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        begins = request["method"] == "initialize"
        if not begins and self.headers["mcp-session-id"] != self.session:
            self._answer(self.refusal, '{"jsonrpc": "2.0", "error": {"code": 1}, "id": "none"}')
        else:
            self._answer(200 if "id" in request else 202, told(request) if "id" in request else "")

    def do_GET(self) -> None:
        self._answer(405, "")

    do_DELETE = do_GET

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        for name, value in (
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("mcp-session-id", self.session),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def forgetful() -> Iterator[str]:
    """The address of such a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/mcp"
        http.shutdown()


@pytest.mark.parametrize("refusal", [404, 400])
async def test_a_forgotten_session_is_restarted(
    refusal: int,
    tmp_path: Path,
    context: ToolContext,
    forgetful: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Forgetful, "refusal", refusal)
    async with opened(tmp_path, far=Settings(url=forgetful)) as servers:
        assert (await call(servers, context, "mcp__far__add", a=1, b=1)).content == "2"
        monkeypatch.setattr(Forgetful, "session", "second")
        assert (await call(servers, context, "mcp__far__add", a=2, b=2)).content == "4"
        assert (await servers.read("far", "note://today")).content == "buy milk"


async def test_the_status_of_a_refused_call_is_told(
    tmp_path: Path, context: ToolContext, forgetful: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forgetful, "refusal", 401)
    async with opened(tmp_path, far=Settings(url=forgetful)) as servers:
        assert (await call(servers, context, "mcp__far__add", a=1, b=1)).content == "2"
        monkeypatch.setattr(Forgetful, "session", "second")
        refused = await call(servers, context, "mcp__far__add", a=2, b=2)
        assert refused.content == (
            "error: MCP server far: answers 401 Unauthorized; its headers can hold a token"
        )


async def test_only_the_settings_limit_a_call_over_http(
    tmp_path: Path, context: ToolContext, forgetful: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_CONNECT_S", 1.0)
    async with opened(tmp_path, far=Settings(url=forgetful)) as servers:
        slept = await call(servers, context, "mcp__far__sleep", seconds=2)
        assert slept.content == "awake"


async def test_offline_keeps_servers_elsewhere_out(tmp_path: Path) -> None:
    far = {"far": Settings(url="https://mcp.example.com/mcp")}
    servers = McpServers(
        far, folder=str(tmp_path), cache=tmp_path, environ=os.environ, offline=True
    )
    assert await servers.tools() == []
    assert "offline is set" in servers.notices[0]
    await servers.aclose()


@pytest.mark.skipif(bwrap.program() is None, reason="bubblewrap is not installed")
async def test_offline_gives_a_server_no_network(tmp_path: Path, context: ToolContext) -> None:
    small = {"small": Settings(command=SMALL, startup_timeout_s=60)}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for offline, answer in ((False, "reached"), (True, "not reached: Connection refused")):
            servers = McpServers(
                small, folder=str(tmp_path), cache=tmp_path, environ=os.environ, offline=offline
            )
            reached = await call(servers, context, "mcp__small__reach", port=port)
            assert reached.content == answer, servers.notices
            await servers.aclose()


async def test_offline_without_bubblewrap_no_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bwrap, "program", lambda: None)
    small = {"small": Settings(command=SMALL)}
    servers = McpServers(
        small, folder=str(tmp_path), cache=tmp_path, environ=os.environ, offline=True
    )
    assert await servers.tools() == []
    assert "only bubblewrap could keep it off the network" in servers.notices[0]
    await servers.aclose()


def test_a_projects_file(tmp_path: Path) -> None:
    assert project_servers(tmp_path, []) == {}
    file = tmp_path / ".mcp.json"
    file.write_text(
        json.dumps({"mcpServers": {"a": {"type": "stdio", "command": "a b", "args": ["c"]}}})
    )
    assert project_servers(tmp_path, []) == {"a": Settings(command=("a b",), args=("c",))}
    sse = {"url": "http://localhost/sse", "type": "sse"}
    web = {"url": "http://localhost/mcp", "type": "streamable-http"}
    file.write_text(json.dumps({"mcpServers": {"a": sse, "b": web}}))
    assert project_servers(tmp_path, []) == {
        "a": Settings(url="http://localhost/sse", type="sse"),
        "b": Settings(url="http://localhost/mcp"),
    }
    for text in ("{", "{}", '{"mcpServers": 1}'):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"\.mcp\.json"):
            project_servers(tmp_path, [])


def test_an_invalid_server_of_a_project_leaves_the_others(tmp_path: Path) -> None:
    good = {"command": "a"}
    servers = {"a": {}, "b": 1, "c": good, "d": {"url": "http://h", "timeout_s": "long"}}
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": servers}))
    notices: list[str] = []
    assert project_servers(tmp_path, notices) == {"c": Settings(command=("a",))}
    file = tmp_path / ".mcp.json"
    assert notices[:2] == [
        f"MCP server a is left out: {file}: needs either command or url",
        f"MCP server b is left out: {file}: should be a table",
    ]
    assert notices[2].startswith(f"MCP server d is left out: {file}: timeout_s")


def test_names_fit_every_provider() -> None:
    assert tool_name("my.server", "do it!") == "mcp__my_server__do_it_"
    long = [tool_name("s", "x" * 100 + end) for end in "ab"]
    assert len(set(long)) == 2 and max(map(len, long)) <= 64


@pytest.mark.skipif(not NODE.is_dir(), reason="the servers that others wrote are not installed")
async def test_third_party_servers(tmp_path: Path, context: ToolContext) -> None:
    (tmp_path / "a.txt").write_text("hello")
    memory = {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}
    async with opened(
        tmp_path,
        everything=Settings(command=(str(NODE / "mcp-server-everything"),)),
        files=Settings(command=(str(NODE / "mcp-server-filesystem"), str(tmp_path))),
        memory=Settings(command=(str(NODE / "mcp-server-memory"),), env=memory),
    ) as servers:
        echo = await call(servers, context, "mcp__everything__echo", message="hi")
        assert echo.content == "Echo: hi"
        read = "mcp__files__read_text_file"
        assert (await call(servers, context, read, path=str(tmp_path / "a.txt"))).content == "hello"
        outside = await call(servers, context, read, path="/etc/passwd")
        assert outside.outcome is Outcome.ERROR
        entity = {"name": "x", "entityType": "y", "observations": ["z"]}
        await call(servers, context, "mcp__memory__create_entities", entities=[entity])
        graph = await call(servers, context, "mcp__memory__read_graph")
        assert '"observations"' in graph.content and '"z"' in graph.content
        listed = [uri for server, uri, _ in await servers.resources() if server == "everything"]
        registry = Registry(await servers.tools())
        (mention,) = servers.mentioned(f"What does @everything:{listed[0]} say?")
        read_it = await registry.dispatch(mention, context)
        assert read_it.outcome is Outcome.OK and len(read_it.content) > 50
        usages = {one.name: one.usage for server, one in servers.prompts()}
        assert usages["args-prompt"] == "city [state]"
        asked = await servers.expanded("/everything:args-prompt Paris")
        assert "Paris" in asked
        assert servers.notices == []


async def _listening(url: str) -> None:
    for _ in range(600):
        try:
            await asyncio.to_thread(urllib.request.urlopen, url, timeout=30)
        except urllib.error.HTTPError:
            return  # any answer will do
        except OSError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"nothing at {url}")
