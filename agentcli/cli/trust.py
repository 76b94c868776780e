"""``agentcli trust``: manages the folders whose project files are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentcli.cli.help import App
from agentcli.trust import distrust, trust, trusted_folders

app = App()


@app.command("trust")
def command(
    folder: Annotated[Path, typer.Argument(help="The project.")] = (Path()),
    remove: Annotated[bool, typer.Option("--remove", help="Stop trusting the folder.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the trusted folders.")] = False,
) -> None:
    """Allow a project's own settings, MCP servers, commands and hooks, in this folder and below."""
    if list_:
        print("\n".join(map(str, trusted_folders())) or "no folder is trusted")
    elif remove:
        gone = distrust(folder)
        print(f"{folder.resolve()} is {'no longer' if gone else 'not among the folders'} trusted")
    else:
        new = trust(folder)
        print(f"{folder.resolve()} is {'now' if new else 'already'} trusted")
