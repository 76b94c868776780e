"""glob and grep."""

from __future__ import annotations

from agentcli.environments.base import GrepMatch
from agentcli.errors import EnvironmentOpError, ToolInputError
from agentcli.text import clip_line, counted
from agentcli.tools.base import MATCHES, ToolContext, ToolOutput
from agentcli.tools.names import meant_name, shown_name

MAX_PATHS = 500
MAX_MATCHES = 200
LINE_CHARS = 400
"""The most characters shown of a matching line."""


async def glob(context: ToolContext, pattern: str, path: str = ".") -> ToolOutput:
    """Find files by name.

    Args:
        pattern: What paths must match, for example `**/*.py`.
        path: The folder to look in, relative to the workspace.
    """
    if not pattern:
        raise ToolInputError('"pattern" is empty', path="pattern")
    # Ask for one more than is shown, to know whether something is left out.
    found = await context.environment.glob(pattern, meant_name(path), limit=MAX_PATHS + 1)
    rows = [shown_name(name) for name in found[:MAX_PATHS]]
    data = {"entries": len(rows), "more": len(found) > MAX_PATHS}
    if not rows:
        return ToolOutput(f"no file matches {pattern}", data=data)
    if data["more"]:
        rows.append(f"[only the first {MAX_PATHS} files are shown]")
    return ToolOutput("\n".join(rows), data=data)


async def grep(
    context: ToolContext,
    pattern: str,
    path: str = ".",
    glob: str | None = None,
    ignore_case: bool = False,
) -> ToolOutput:
    """Search the contents of files.

    Args:
        pattern: A regular expression, matched within single lines.
        path: The file or folder to search, relative to the workspace.
        glob: Search only files whose names match, for example `*.py`.
        ignore_case: Whether upper and lower case are the same.
    """
    if not pattern:
        raise ToolInputError('"pattern" is empty', path="pattern")
    try:
        found = await context.environment.grep(
            pattern,
            meant_name(path),
            glob=glob,
            ignore_case=ignore_case,
            limit=MAX_MATCHES + 1,
        )
    except EnvironmentOpError as error:
        if error.code == "EINVAL" and error.message.startswith("pattern: "):
            raise ToolInputError(error.message, path="pattern") from error
        raise
    found, more = found[:MAX_MATCHES], len(found) > MAX_MATCHES
    shown = found
    if not context.hides(meant_name(path)):  # else the user has just allowed it
        shown = [match for match in found if not context.hides(match.path)]
    data = {MATCHES: len(shown), "more": more}
    rows = [_row(match) for match in shown] or [f"no match for {pattern}"]
    if hidden := len(found) - len(shown):
        rows.append(f"[{counted(hidden, 'match', 'matches')} left out, as rules guard the files]")
    if more:
        rows.append(f"[only the first {MAX_MATCHES} matches are shown]")
    paths = tuple(dict.fromkeys(match.path for match in shown))
    return ToolOutput("\n".join(rows), paths=paths, data=data)


def _row(match: GrepMatch) -> str:
    text = match.text.rstrip("\r\n")
    return f"{shown_name(match.path)}:{match.line}: {clip_line(text, LINE_CHARS)}"
