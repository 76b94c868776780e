"""An MCP server built with the official SDK; ``python mcp_sdk_server.py PORT`` serves HTTP."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("far")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.resource("note://today")
def note() -> str:
    """A note."""
    return "buy milk"


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1]))
