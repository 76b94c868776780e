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
from agentcli.tools.mcp.servers import McpServers
from agentcli.trust import is_trusted
from agentcli.wiring import mcp_settings

app = App()


@app.command("mcp")
def command(
    workspace: Annotated[Path, typer.Option("--workspace", help="The project's folder.")] = Path(),
) -> int:
    """Connect to each MCP server and list what it offers; exit 1 where one cannot be reached."""
    folder = workspace.resolve()
    settings = config.load(folder, trusted=is_trusted(folder))
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


async def _show(servers: McpServers) -> int:
    try:
        for tool in await servers.tools():
            first = tool.spec.description.split(". ")[0]
            print(f"{tool.spec.name:<44}{tool.spec.kind:<8}{first[:80]}")
        for notice in servers.notices:
            print(notice)
        return 1 if servers.notices else 0
    finally:
        await servers.aclose()
