"""``agentcli tools``: lists the tools that a model is given, including those of MCP servers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from agentcli.cli.errors import show_note
from agentcli.cli.help import App
from agentcli.cli.table import table
from agentcli.config import load
from agentcli.errors import UsageError
from agentcli.folders import user_folder
from agentcli.prompts import Prompts
from agentcli.sandbox.limits import CHECK, COMMAND
from agentcli.text import escape, one_line
from agentcli.tools.base import Tool
from agentcli.wiring import plugged
from agentcli.wiring.toolbox import Toolbox, chosen

app = App()


@app.command()
def tools(
    name: Annotated[
        str, typer.Argument(help="Show only this tool, with its description and schema.")
    ] = "",
) -> None:
    """List the tools that a model is given, and what installed packages add."""
    specs = {tool.spec.name: tool.spec for tool in asyncio.run(_offered())}
    if not name:
        rows = [(one.name, one.kind, one_line(one.description, 90)) for one in specs.values()]
        for line in table(("TOOL", "KIND", "DOES"), rows, sys.stdout.isatty()):
            print(escape(line))
        _print_packages()
        return
    if name not in specs:
        raise UsageError(f"there is no tool {name}", hint=f"There are {', '.join(specs)}")
    spec = specs[name]
    print(escape(f"{spec.name}@{spec.version} ({spec.kind})\n\n{spec.description}\n"))
    print(json.dumps(spec.parameters, indent=2))


def _print_packages() -> None:
    """Print what installed packages add by entry points, including those that fail."""
    if found := plugged.added():
        print("\nadded by installed packages:")
    for one in found:
        what = one.what if one.works else f"does not work: {one.what}"
        print(escape(f"{one.name:<16}{one.kind:<10}{one.package}: {what}"))


async def _offered() -> list[Tool]:
    """The tools of a session in this folder."""
    root = Path.cwd()
    settings = load(root)
    prompts = Prompts.standard(user=user_folder() / "prompts")
    notices: list[str] = []
    async with AsyncExitStack() as stack:
        # Any folder will do for the journals of sub-agents: no session is opened.
        toolbox = Toolbox(settings, root, prompts, root)
        gathered = await toolbox.gather(COMMAND, CHECK, stack, notices)
    for notice in notices:
        show_note(notice)
    return chosen(gathered, (), settings.extra_tools)
