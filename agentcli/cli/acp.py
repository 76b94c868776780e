"""``agentcli acp``: an editor drives the agent over stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from agentcli import config, extras
from agentcli.cli.errors import log_to_file
from agentcli.cli.help import App
from agentcli.errors import UsageError
from agentcli.settings import Settings

app = App()


@app.command("acp")
def command(
    model: Annotated[
        str | None, typer.Option(help="PROVIDER:NAME, such as openai:gpt-6.2-sol.", metavar="MODEL")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="The permission mode to start with; the editor can change it."),
    ] = None,
) -> int:
    """Serve the Agent Client Protocol on stdin and stdout, for editors such as Zed."""
    try:
        from acp import Agent, run_agent
    except ModuleNotFoundError as error:
        raise UsageError("the extra acp is missing", hint=extras.install("acp")) from error
    from agentcli.acp.agent import AcpAgent
    from agentcli.acp.transport import LineTransport, stdio

    def load(folder: Path) -> Settings:
        flags: dict[str, Any] = {"model": model, "mode": mode}
        return config.load(folder, flags=flags)

    async def serve() -> None:
        agent = AcpAgent(load)
        lines = LineTransport(*await stdio())
        try:
            # The unstable part of the protocol closes sessions.
            await run_agent(cast(Agent, agent), lines, use_unstable_protocol=True)
        finally:
            await agent.aclose()

    if any(stat.S_ISREG(os.fstat(stream).st_mode) for stream in (0, 1)):
        raise UsageError("acp talks over pipes, not files", hint="An editor starts this command")
    log_to_file()
    load(Path.cwd())  # reports invalid settings at once, on stderr
    asyncio.run(serve())
    return 0
