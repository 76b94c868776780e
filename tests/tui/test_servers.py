"""MCP servers in the chat: their status, prompts as / commands and resources as @ mentions."""

from __future__ import annotations

import sys
from pathlib import Path

from agentcli.settings import McpServerSettings, McpSettings, Settings
from agentcli.tui.entries import Said, Shown
from tests.server import Reply
from tests.tui.conftest import Start

SERVER = Path(__file__).parents[1] / "tools" / "mcp_server.py"
SMALL = McpServerSettings(command=(sys.executable, "-I", str(SERVER)))


async def test_prompts_and_resources_are_completed_and_sent(chat: Start) -> None:
    settings = Settings(retries=0, mcp=McpSettings(servers={"small": SMALL}))
    async with chat([Reply(text="fine"), Reply(text="read")], settings=settings) as one:
        await one.idle()
        await one.send("/mcp")
        await one.until(lambda: one.entries(Shown), "the servers")
        table = one.entries(Shown)[0].text
        assert "`small`" in table and "`add`" in table and "`/small:" in table
        servers = one.agent.context.servers
        assert servers is not None
        (_, prompt), *_ = servers.prompts()
        await one.type("/small")
        await one.sees(f"/small:{prompt.name}")
        words = " ".join(f"{name}=it" for name, _ in prompt.arguments)
        await one.send(f"/small:{prompt.name} {words}")
        await one.idle()
        expected = await servers.expanded(f"/small:{prompt.name} {words}")
        assert one.entries(Said)[0].text == expected and not expected.startswith("/")
        _, uri, _ = (await servers.resources())[0]
        await one.type("read @small")
        await one.until(lambda: f"small:{uri}" in one.app.files.paths, "the resources")
        await one.type(":")
        await one.sees(f"@small:{uri}")
        await one.press("enter", "enter")
        await one.idle()
        assert one.entries(Said)[1].text == f"read @small:{uri}"
        await one.send("/small:nonsense")
        await one.sees("has no prompt nonsense")
