"""``agentcli mcp``: the configured MCP servers, and whether they answer."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config
from agentcli.cli.help import App
from agentcli.text import escape, one_line
from agentcli.tools.mcp.servers import McpServers
from agentcli.wiring import mcp_settings

app = App()


@app.command("mcp")
def command(
    workspace: Annotated[
        Path, typer.Option("--workspace", help="The project's folder.", metavar="DIR")
    ] = Path(),
) -> int:
    """Connect to each MCP server and list its tools and prompts; exit 1 if one is out of reach."""
    folder = workspace.resolve()
    settings = config.load(folder)
    notices: list[str] = []
    servers = mcp_settings(settings, folder, notices)
    for notice in notices:
        print(f"note: {notice}")
    if not servers:
        print("no MCP server is configured; see docs/protocols.md")
        return 0
    with tempfile.TemporaryDirectory() as nothing_remembered:
        found = McpServers(
            servers,
            folder=str(folder),
            cache=Path(nothing_remembered),
            environ=os.environ,
            offline=settings.offline,
        )
        return asyncio.run(_show(found))


def _print(name: str, kind: str, description: str) -> None:
    """Print one line, escaped: a server's texts may contain anything."""
    print(escape(f"{name:<43} {kind:<8}{one_line(description.split('. ')[0])}").rstrip())


async def _show(servers: McpServers) -> int:
    try:
        for tool in await servers.tools():
            _print(tool.spec.name, tool.spec.kind, tool.spec.description)
        for server, prompt in servers.prompts():
            _print(f"/{server}:{prompt.name} {prompt.usage}", "prompt", prompt.description)
        for notice in servers.notices:
            print(notice)
        return 1 if servers.notices else 0
    finally:
        await servers.aclose()
