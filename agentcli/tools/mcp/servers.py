"""Tools of MCP servers (modelcontextprotocol.io), through the official SDK.

A server's tools appear as ``mcp__SERVER__TOOL`` and use the same dispatch path as all others. What
a server offers is cached from its last connection, so that a session opens without waiting: the
server starts when one of its tools is first called. Servers without a cache entry are asked at the
start, in parallel.

A server is foreign code: it may be slow, crash, flood its output or send invalid data. Any such
failure becomes one line in a call's result or in ``McpServers.notices``. Servers run outside the
sandbox with the user's rights, as users who configure them expect, and with an allowlisted
environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from agentcli.errors import ConfigError, ToolError
from agentcli.messages import ToolCall
from agentcli.settings import McpServerSettings
from agentcli.text import clip, escape, one_line
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.mcp.references import (
    Prompt,
    arguments_of,
    prompt_named,
    resources_named,
)
from agentcli.tools.mcp.server import Offer, OfferedTool, Server, fault, items_of
from agentcli.tools.mcp.tools import output_of, text_of, tools_of
from agentcli.tools.soundness import check_sound

if TYPE_CHECKING:
    from mcp import Client

PROJECT_SERVERS = ".mcp.json"
"""The file in which a project configures servers; other assistants read it, too."""
RESOURCE_TOOL = "mcp_resource"
_MOST_FAULTS = 5
_MOST_MENTIONS = 10
_MOST_INSTRUCTIONS = 4000


def project_servers(folder: Path, notices: list[str]) -> dict[str, McpServerSettings]:
    """The servers in a project's ``.mcp.json``, if there is one; ``notices`` names invalid ones.

    Raises:
        ConfigError: the file cannot be read or has another form.
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
    valid: dict[str, McpServerSettings] = {}
    for name, value in servers.items():
        try:
            valid[name] = _project_server(value)
        except ConfigError as error:  # the others still serve
            notices.append(escape(f"MCP server {name} is left out: {file}: {error.message}"))
    return valid


def _project_server(value: Any) -> McpServerSettings:
    known = McpServerSettings.model_fields
    try:
        fields = {key: item for key, item in value.items() if key in known}
        if fields.get("type") != "sse":
            fields.pop("type", None)  # others are known by their fields, and have many names
        if isinstance(command := fields.get("command"), str):
            fields["command"] = (command,) * bool(command)  # a program's name, never split
        return McpServerSettings.model_validate(fields)
    except AttributeError as error:
        raise ConfigError("should be a table") from error
    except ValidationError as error:
        raise ConfigError(fault(error)) from error


class McpServers:
    """All servers of a session. ``notices`` collects problems, one line each."""

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
        self._offers: dict[str, Offer] = {}

    async def tools(self) -> list[Tool]:
        """The tools of all servers that can be reached or are cached."""
        offers = await asyncio.gather(*map(self._offer, self.servers.values()))
        self._offers = dict(zip(self.servers, offers, strict=True))
        found: dict[str, Tool] = {}
        for server, offer in zip(self.servers.values(), offers, strict=True):
            faults = list(server.malformed)
            for tool in tools_of(server, offer):
                if fault := _unusable(tool, found):
                    faults.append(fault)
                else:
                    found[tool.spec.name] = tool
            self._tell_left_out(server.name, faults)
        if self._with_resources:
            found[RESOURCE_TOOL] = self._resource_tool()
        return list(found.values())

    def _tell_left_out(self, server: str, faults: Sequence[str]) -> None:
        said = [f"left out: {fault}" for fault in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            said.append(f"{len(faults) - _MOST_FAULTS} more tools or prompts are left out")
        self.notices += [f"MCP server {server}: {line}" for line in said]

    @property
    def instructions(self) -> str:
        """What the servers say about the use of their tools; empty if none says anything."""
        said = {name: offer.instructions.strip() for name, offer in self._offers.items()}
        return "\n\n".join(
            f"## {name}\n\n{clip(text, _MOST_INSTRUCTIONS)}" for name, text in said.items() if text
        )

    async def read(self, server: str, uri: str) -> ToolOutput:
        """Read a resource.

        Raises:
            ToolError: there is no such server, or it failed.
        """

        async def fetch(client: Client) -> ToolOutput:
            name = PurePosixPath(urlsplit(uri).path).stem or "resource"
            return output_of((await client.read_resource(uri)).contents, name)

        return await self._server(server).use(fetch)

    def connected(self) -> list[str]:
        """The names of connected servers."""
        return [name for name, server in self.servers.items() if server.connected]

    def prompts(self) -> list[tuple[str, Prompt]]:
        """(server, prompt) of all known prompts, without asking any server."""
        return [(name, one) for name, offer in self._offers.items() for one in offer.prompts]

    async def prompt(self, server: str, name: str, arguments: Mapping[str, str]) -> str:
        """Get a server's prompt with the arguments filled in.

        Raises:
            ToolError: there is no such server, or it failed.
        """

        async def fetch(client: Client) -> str:
            result = await client.get_prompt(name, dict(arguments))
            return "\n\n".join(text_of([message.content]) for message in result.messages)

        return await self._server(server).use(fetch)

    async def expanded(self, text: str) -> str:
        """Expand ``/server:prompt ARGUMENTS``; any other text is returned unchanged.

        Raises:
            ToolError: the server has no such prompt, failed, or an argument is missing.
        """
        called = prompt_named(text, self._offers)
        if called is None:
            return text
        server, name, rest = called
        known = {one.name: one for one in self._offers[server].prompts}
        if name not in known:  # the server may have added it since
            self._offers[server] = await self._server(server).offer()
            known = {one.name: one for one in self._offers[server].prompts}
        if name not in known:
            there = ", ".join(known) or "none"
            raise ToolError(f"MCP server {server} has no prompt {name}; there are: {there}")
        prompt = await self.prompt(server, name, arguments_of(known[name], rest))
        if not prompt.strip():
            raise ToolError(f"MCP server {server}: the prompt {name} is empty")
        return prompt

    async def resources(self) -> list[tuple[str, str, str]]:
        """(server, uri, description or name) from all servers that answer, asked in parallel."""
        servers = self._with_resources
        lists = await asyncio.gather(*map(self.list_resources, servers), return_exceptions=True)
        found = []
        for server, listed in zip(servers, lists, strict=True):
            if isinstance(listed, ToolError):
                self.notices.append(listed.message)
            elif isinstance(listed, BaseException):
                raise listed
            else:
                found += [(server, uri, what) for uri, what in listed]
        return found

    def mentioned(self, text: str) -> list[ToolCall]:
        """Tool calls that read the resources a text mentions as ``@server:uri``."""
        named = resources_named(text, self._with_resources)[:_MOST_MENTIONS]
        return [
            ToolCall(f"mention-{place}", RESOURCE_TOOL, json.dumps({"server": name, "uri": uri}))
            for place, (name, uri) in enumerate(named, start=1)
        ]

    async def list_resources(self, server: str) -> list[tuple[str, str]]:
        """(uri, description or name) of a server's resources.

        Raises:
            ToolError: there is no such server, or it failed.
        """

        async def fetch(client: Client) -> list[tuple[str, str]]:
            return [
                (str(one.uri), one.description or one.name)
                async for one in items_of(client.list_resources, "resources")
            ]

        return await self._server(server).use(fetch)

    async def list_templates(self, server: str) -> list[tuple[str, str]]:
        """(URI template, description or name) of the resources that a server makes on request.

        Raises:
            ToolError: there is no such server, or it failed.
        """

        async def fetch(client: Client) -> list[tuple[str, str]]:
            from mcp import MCPError

            with contextlib.suppress(MCPError):  # many servers do not know this method
                return [
                    (one.uri_template, one.description or one.name)
                    async for one in items_of(client.list_resource_templates, "resource_templates")
                ]
            return []

        return await self._server(server).use(fetch)

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(server.aclose() for server in self.servers.values()))

    @property
    def _with_resources(self) -> list[str]:
        return [name for name, offer in self._offers.items() if offer.resources]

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
            self._offers[server.name] = now
            self.notices.append(
                f"MCP server {server.name} has other tools than when last seen; "
                "the next session has them"
            )

    def _resource_tool(self) -> Tool:
        async def resource(context: ToolContext, server: str, uri: str = "") -> ToolOutput:
            if uri:
                return await self.read(server, uri)
            listed = await self.list_resources(server) + await self.list_templates(server)
            lines = [f"{one}: {one_line(what, 200)}" for one, what in listed]
            return ToolOutput("\n".join(lines) or "no resources")

        text = {"type": "string"}
        spec = ToolSpec(
            name=RESOURCE_TOOL,
            description="Read a resource of an MCP server; without uri, list its resources, and "
            "templates of their URIs. "
            f"Servers: {', '.join(self._with_resources)}.",
            parameters={
                "type": "object",
                "properties": {"server": text, "uri": {**text, "default": ""}},
                "required": ["server"],
                "additionalProperties": False,
            },
            kind=ToolKind.READ,
        )
        return Tool(spec, resource)


def _unusable(tool: Tool, others: Container[str]) -> str:
    """Why a tool cannot be offered to the model; empty if it can."""
    if tool.spec.name in others:
        return f"tool {tool.spec.name}: another one has this name"
    try:
        check_sound(tool)
    except ConfigError as error:
        return escape(one_line(error.message, 300))
    return ""


def _remembered(file: Path) -> Offer | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        tools = tuple(
            OfferedTool(name, description, dict(schema), bool(read_only), bool(outward))
            for name, description, schema, read_only, outward in kept["tools"]
        )
        prompts = tuple(
            Prompt(name, description, tuple((n, bool(must)) for n, must in arguments))
            for name, description, arguments in kept["prompts"]
        )
        return Offer(tools, bool(kept["resources"]), prompts, str(kept["instructions"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or invalid: ask the server


def _remember(file: Path, offer: Offer) -> None:
    kept = {
        "tools": offer.tools,
        "resources": offer.resources,
        "prompts": [astuple(prompt) for prompt in offer.prompts],
        "instructions": offer.instructions,
    }
    temporary = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # the cache only saves time
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(temporary, file)
