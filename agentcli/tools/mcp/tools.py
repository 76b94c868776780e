"""Converts an MCP server's tools to ours and its results to text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentcli.messages import Outcome
from agentcli.text import clip, one_line
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.mcp.schemas import acceptable
from agentcli.tools.mcp.server import Offer, Server, digest

if TYPE_CHECKING:
    from mcp import Client

_MOST_DESCRIPTION = 4000


def tools_of(server: Server, offer: Offer) -> list[Tool]:
    """The tools of a server that its settings allow."""
    wanted = server.settings.tools
    found = []
    for one in offer.tools:
        if not wanted or one.name in wanted:
            parameters, renamed = acceptable(one.schema)
            spec = ToolSpec(
                name=tool_name(server.name, one.name),
                description=clip(one.description.strip(), _MOST_DESCRIPTION) or one.name,
                parameters=parameters,
                kind=ToolKind.READ if one.read_only else ToolKind.RUN,
                outward=one.outward,
                timeout_s=server.settings.timeout_s + server.settings.startup_timeout_s + 5,
            )
            found.append(Tool(spec, _Call(server, one.name, renamed)))
    return found


def tool_name(server: str, tool: str) -> str:
    """``mcp__SERVER__TOOL``, restricted to the characters and length that all providers accept."""
    name = re.sub("[^A-Za-z0-9_-]", "_", f"mcp__{server}__{tool}")
    return name if len(name) <= 64 else f"{name[:55]}_{digest(name)[:8]}"


@dataclass(frozen=True)
class _Call:
    """A tool's function, which sends the call to the server.

    ``renamed`` maps arguments to the server's names for them.
    """

    server: Server
    tool: str
    renamed: Mapping[str, str]

    async def __call__(self, context: ToolContext, /, **arguments: Any) -> ToolOutput:
        async def show(progress: float, total: float | None, message: str | None) -> None:
            if context.progress:
                of = f"/{total:g}" if total else ""
                context.progress("stdout", f"{progress:g}{of} {message or ''}".encode() + b"\n")

        async def call(client: Client) -> ToolOutput:
            own = {self.renamed.get(name, name): value for name, value in arguments.items()}
            result = await client.call_tool(self.tool, own, progress_callback=show)
            text = text_of(result.content)
            if not text and result.structured_content is not None:
                text = json.dumps(result.structured_content, ensure_ascii=False)
            if result.is_error:
                return ToolOutput(f"error: {text}", Outcome.ERROR)
            return ToolOutput(text or "done")

        return await self.server.use(call)


def text_of(content: Sequence[Any]) -> str:
    """The text of a result, with placeholders for its other parts."""
    return "\n".join(filter(None, map(_part_text, content)))


def _part_text(part: Any) -> str:
    part = getattr(part, "resource", None) or part  # unwrap an embedded resource
    if (text := getattr(part, "text", None)) is not None:
        return str(text)
    kind = getattr(part, "mime_type", None)
    if (encoded := getattr(part, "data", None) or getattr(part, "blob", None)) is not None:
        data = base64.b64decode(encoded, validate=False)
        if kind and kind.startswith("text/"):
            return data.decode(errors="replace")
        return f"[{kind or 'data'}, {len(data)} bytes]"
    if (uri := getattr(part, "uri", None)) is not None:
        about = getattr(part, "description", None) or getattr(part, "name", None)
        return f"[resource {uri}: {one_line(about, 200)}]" if about else f"[resource {uri}]"
    return ""
