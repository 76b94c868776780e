"""``agentcli tools``: the tools as a model is told of them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from agentcli.errors import UsageError
from agentcli.text import one_line
from agentcli.tools.builtin import builtin_tools

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def tools(
    name: Annotated[
        str, typer.Argument(help="Show one tool with its description and schema.")
    ] = "",
) -> None:
    """Show the tools that a model is given: name, kind, description."""
    specs = {tool.spec.name: tool.spec for tool in builtin_tools()}
    if not name:
        for spec in specs.values():
            print(f"{spec.name:<16}{spec.kind:<8}{one_line(spec.description, 90)}")
        return
    if name not in specs:
        raise UsageError(f"there is no tool {name}", hint=f"There are {', '.join(specs)}")
    spec = specs[name]
    print(f"{spec.name}@{spec.version} ({spec.kind})\n\n{spec.description}\n")
    print(json.dumps(spec.parameters, indent=2))
