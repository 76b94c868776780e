"""An MCP server built with the official SDK, over HTTP.

python mcp_sdk_server.py PORT [sse]
"""

from __future__ import annotations

import base64
import sys

from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("far")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def shot() -> list[str | Image]:
    """Show the page."""
    gif = base64.b64decode("R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==")
    return ["The page:", Image(data=gif, format="gif")]


@server.resource("note://today")
def note() -> str:
    """A note."""
    return "buy milk"


if __name__ == "__main__":
    if sys.argv[2:] == ["sse"]:
        server.run("sse", port=int(sys.argv[1]))
    else:
        server.run("streamable-http", port=int(sys.argv[1]))
