"""Converts an MCP server's tools to ours and its results to text and images."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentcli.image_formats import MAX_IMAGES, described, media_type, unfit
from agentcli.messages import Image, Outcome
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
            output = output_of(result.content, self.tool)
            text = output.content
            if not text and result.structured_content is not None:
                text = json.dumps(result.structured_content, ensure_ascii=False)
            if result.is_error:
                return replace(output, content=f"error: {text}", outcome=Outcome.ERROR)
            return replace(output, content=text or "done")

        return await self.server.use(call)


def output_of(content: Iterable[Any], name: str) -> ToolOutput:
    """The text and the images of a result; ``name`` is what to call these.

    In the text, a line stands for each part that is not text, and says why an image is not shown.
    """
    lines, images, count = [], list[Image](), 0
    for part in map(_unwrapped, content):
        data = _bytes(part)
        kind = media_type(data)
        if kind is None:
            lines.append(_part_text(part))
            continue
        count += 1
        number = f"-{count}" if count > 1 else ""
        image = Image(data, kind, f"{name}{number}.{kind.removeprefix('image/')}")
        reason = unfit(data)
        if not reason and len(images) == MAX_IMAGES:
            reason = f"only the first {MAX_IMAGES} are"
        if not reason:
            images.append(image)
        note = f"; not shown: {reason}" if reason else ""
        lines.append(f"[image {image.name}: {described(data)}{note}]")
    return ToolOutput("\n".join(filter(None, lines)), images=tuple(images))


def text_of(content: Iterable[Any]) -> str:
    """The text of parts, with placeholders for those that are not text."""
    return "\n".join(filter(None, map(_part_text, map(_unwrapped, content))))


def _unwrapped(part: Any) -> Any:
    """The resource, if it is embedded in a part."""
    return getattr(part, "resource", None) or part


def _bytes(part: Any) -> bytes:
    encoded = getattr(part, "data", None) or getattr(part, "blob", None) or ""
    return base64.b64decode(encoded, validate=False)


def _part_text(part: Any) -> str:
    if (text := getattr(part, "text", None)) is not None:
        return str(text)
    kind = getattr(part, "mime_type", None)
    if data := _bytes(part):
        if kind and kind.startswith("text/"):
            return data.decode(errors="replace")
        return f"[{kind or 'data'}, {len(data)} bytes]"
    if (uri := getattr(part, "uri", None)) is not None:
        about = getattr(part, "description", None) or getattr(part, "name", None)
        return f"[resource {uri}: {one_line(about, 200)}]" if about else f"[resource {uri}]"
    return ""
