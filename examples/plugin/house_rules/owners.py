"""A tool for the model: who owns a file."""

from __future__ import annotations

from fnmatch import fnmatchcase

from agentcli import ToolContext, ToolKind, tool


@tool(kind=ToolKind.READ)
async def owners(context: ToolContext, path: str) -> str:
    """Say who owns a file, as CODEOWNERS has it.

    Args:
        path: Relative to the workspace.
    """
    text = (await context.environment.read("CODEOWNERS")).decode()
    found = "nobody"
    for line in text.splitlines():
        pattern, *names = line.split("#")[0].split() or [""]
        if names and fnmatchcase(path, pattern.lstrip("/")):
            found = ", ".join(names)  # the last match holds
    return f"{path} is owned by {found}"
