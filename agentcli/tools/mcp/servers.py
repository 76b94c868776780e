"""Tools of MCP servers (modelcontextprotocol.io), through the official SDK.

A server's tools appear as ``mcp__SERVER__TOOL`` and take the one dispatch path. What a server
offers is remembered from its last connection, so that a session opens without waiting for it: the
server starts when one of its tools is first called. One that was never seen is asked at the start,
all of them side by side.

A server is another's program: it may be slow, die, flood or talk nonsense. Whatever it does costs
one line in the result of a call or in ``McpServers.notices``. Servers run with the user's rights
outside the sandbox, as those who configure them expect; their environment is an allowlist.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentcli.errors import ConfigError, ToolError
from agentcli.messages import Outcome
from agentcli.settings import McpServerSettings
from agentcli.text import one_line
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.mcp.server import Offer, Server, digest

if TYPE_CHECKING:
    from mcp import Client

PROJECT_SERVERS = ".mcp.json"
"""Where a project names servers, as other assistants read it too."""


def project_servers(folder: Path) -> dict[str, McpServerSettings]:
    """The servers of a project's ``.mcp.json``; none where there is no such file.

    Raises:
        ConfigError: it is not what such a file should be.
    """
    file = folder / PROJECT_SERVERS
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["mcpServers"]
        servers = dict(found.items())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file}: {error}", hint='It should be like {"mcpServers": {"NAME": {"command": ...}}}'
        ) from error
    return {name: _project_server(file, name, value) for name, value in servers.items()}


def _project_server(file: Path, name: str, value: Any) -> McpServerSettings:
    known = McpServerSettings.model_fields
    try:
        fields = {key: item for key, item in value.items() if key in known}
        if isinstance(command := fields.get("command"), str):
            fields["command"] = (command,)  # here it is one word, whatever it contains
        return McpServerSettings.model_validate(fields)
    except (AttributeError, ValueError) as error:
        raise ConfigError(f"{file}: {name}: {one_line(str(error), 200)}") from error


class McpServers:
    """All servers of a session. ``notices`` collects what went wrong, one line each."""

    def __init__(
        self,
        servers: Mapping[str, McpServerSettings],
        *,
        folder: str,
        cache: Path,
        environ: Mapping[str, str],
        offline: bool = False,
        notices: list[str] | None = None,
    ) -> None:
        self.notices = [] if notices is None else notices
        self._cache = cache
        self.servers = {
            name: Server(name, settings, folder, environ, offline)
            for name, settings in servers.items()
            if settings.enabled
        }

    async def tools(self) -> list[Tool]:
        """The tools of all servers; those of a server that cannot be reached are missing."""
        offers = await asyncio.gather(*map(self._offer, self.servers.values()))
        found = [
            tool
            for server, offer in zip(self.servers.values(), offers, strict=True)
            for tool in _tools(server, offer)
        ]
        if any(offer.resources for offer in offers):
            found.append(self._resource_tool())
        return found

    async def read(self, server: str, uri: str) -> str:
        """A resource as text.

        Raises:
            ToolError: no such server, or it failed.
        """

        async def fetch(client: Client) -> str:
            return _text((await client.read_resource(uri)).contents)

        return await self._server(server).use(fetch)

    async def prompt(self, server: str, name: str, arguments: Mapping[str, str]) -> str:
        """A prompt of a server, filled in.

        Raises:
            ToolError: no such server, or it failed.
        """

        async def fetch(client: Client) -> str:
            result = await client.get_prompt(name, dict(arguments))
            return "\n\n".join(_text([message.content]) for message in result.messages)

        return await self._server(server).use(fetch)

    async def list_resources(self, server: str) -> list[tuple[str, str]]:
        """(uri, name or description) of what a server can be asked to read.

        Raises:
            ToolError: no such server, or it failed.
        """

        async def fetch(client: Client) -> list[tuple[str, str]]:
            listed = (await client.list_resources()).resources
            return [(str(one.uri), one.description or one.name) for one in listed]

        return await self._server(server).use(fetch)

    async def aclose(self) -> None:
        """End all servers."""
        await asyncio.gather(*(server.aclose() for server in self.servers.values()))

    def _server(self, name: str) -> Server:
        if name not in self.servers:
            there = ", ".join(self.servers) or "none"
            raise ToolError(f"there is no MCP server {name}; there are: {there}")
        return self.servers[name]

    async def _offer(self, server: Server) -> Offer:
        file = self._cache / f"{server.fingerprint}.json"
        if remembered := _remembered(file):
            server.on_offer = lambda offer: self._renewed(server, file, remembered, offer)
            return remembered
        try:
            offer = await server.offer()
        except ToolError as error:
            self.notices.append(error.message)
            return Offer()
        _remember(file, offer)
        return offer

    def _renewed(self, server: Server, file: Path, before: Offer, now: Offer) -> None:
        if now != before:
            _remember(file, now)
            self.notices.append(
                f"MCP server {server.name} has other tools than when last seen; "
                "the next session has them"
            )

    def _resource_tool(self) -> Tool:
        async def mcp_resource(context: ToolContext, server: str, uri: str = "") -> ToolOutput:
            if uri:
                return ToolOutput(await self.read(server, uri))
            listed = await self.list_resources(server)
            lines = [f"{one}: {one_line(what, 200)}" for one, what in listed]
            return ToolOutput("\n".join(lines) or "no resources")

        text = {"type": "string"}
        spec = ToolSpec(
            name="mcp_resource",
            description="Read a resource of an MCP server; without uri, list its resources. "
            f"Servers: {', '.join(self.servers)}.",
            parameters={
                "type": "object",
                "properties": {"server": text, "uri": {**text, "default": ""}},
                "required": ["server"],
                "additionalProperties": False,
            },
            kind=ToolKind.READ,
        )
        return Tool(spec, mcp_resource)


def _tools(server: Server, offer: Offer) -> list[Tool]:
    wanted = server.settings.tools
    return [
        Tool(
            ToolSpec(
                name=tool_name(server.name, name),
                description=one_line(description, 1000) or name,
                parameters=schema,
                kind=ToolKind.READ if read_only else ToolKind.RUN,
                timeout_s=server.settings.timeout_s + server.settings.startup_timeout_s + 5,
            ),
            _Call(server, name),
        )
        for name, description, schema, read_only in offer.tools
        if not wanted or name in wanted
    ]


def tool_name(server: str, tool: str) -> str:
    """``mcp__SERVER__TOOL`` in the characters and the length that all providers accept."""
    name = re.sub("[^A-Za-z0-9_-]", "_", f"mcp__{server}__{tool}")
    return name if len(name) <= 64 else f"{name[:55]}_{digest(name)[:8]}"


@dataclass(frozen=True)
class _Call:
    """A tool's function: carries one call to the server."""

    server: Server
    tool: str

    async def __call__(self, context: ToolContext, /, **arguments: Any) -> ToolOutput:
        async def show(progress: float, total: float | None, message: str | None) -> None:
            if context.progress:
                of = f"/{total:g}" if total else ""
                context.progress("stdout", f"{progress:g}{of} {message or ''}".encode() + b"\n")

        async def call(client: Client) -> ToolOutput:
            result = await client.call_tool(self.tool, arguments, progress_callback=show)
            text = _text(result.content)
            if not text and result.structured_content is not None:
                text = json.dumps(result.structured_content, ensure_ascii=False)
            if result.is_error:
                return ToolOutput(f"error: {text}", Outcome.ERROR)
            return ToolOutput(text or "done")

        return await self.server.use(call)


def _remembered(file: Path) -> Offer | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        tools = tuple((n, d, dict(schema), bool(ro)) for n, d, schema, ro in kept["tools"])
        prompts = tuple((name, description) for name, description in kept["prompts"])
        return Offer(tools, bool(kept["resources"]), prompts)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never seen, or not ours: ask


def _remember(file: Path, offer: Offer) -> None:
    kept = {"tools": offer.tools, "resources": offer.resources, "prompts": offer.prompts}
    temporary = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # only speed depends on it
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(temporary, file)


def _text(content: Sequence[Any]) -> str:
    """What of a result a model can read."""
    parts = []
    for part in content:
        part = getattr(part, "resource", None) or part  # embedded ones are wrapped
        if (text := getattr(part, "text", None)) is not None:
            parts.append(str(text))
        elif (data := getattr(part, "data", None) or getattr(part, "blob", None)) is not None:
            size = len(base64.b64decode(data, validate=False))
            parts.append(f"[{getattr(part, 'mime_type', None) or 'data'}, {size} bytes]")
        elif (uri := getattr(part, "uri", None)) is not None:
            parts.append(f"[resource {uri}]")
    return "\n".join(parts)
