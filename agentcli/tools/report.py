"""Reports the result of a command to the model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from agentcli.environments.base import ExecResult
from agentcli.errors import ToolError
from agentcli.messages import Outcome
from agentcli.text import plain_output, truncate
from agentcli.tools.base import ToolOutput

QUIET: Mapping[str, str] = {
    # No pagers, prompts or colours, and no bytecode files: they litter the workspace, and one
    # written in the same second as an edit may be taken for up to date.
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
}
"""Variables for commands that a tool runs."""


def ending(result: ExecResult, time_s: float) -> str:
    """``exit code 1``, ``timed out after 120 s``, or why the command was ended."""
    if result.timed_out:
        return f"timed out after {time_s:g} s"
    if result.exit_code is None:
        return result.error or "ended by a limit"
    return f"exit code {result.exit_code}"


def output_of(stdout: str, stderr: str, limit: int) -> str:
    """Both streams as text of about ``limit`` characters at most; stderr follows a marker line.

    Each stream is truncated on its own, so that neither displaces the other.
    """
    for_stderr = min(len(stderr), max(limit // 3, limit - len(stdout)))
    parts = [str(truncate(stdout, limit - for_stderr)).rstrip("\n")] if stdout.strip() else []
    if stderr.strip():
        parts += ["[stderr]", str(truncate(stderr, for_stderr)).rstrip("\n")]
    return "\n".join(parts)


def _line_count(text: str) -> int:
    return text.rstrip("\n").count("\n") + 1 if text.strip() else 0


def command_output(
    result: ExecResult,
    first_line: str,
    limit: int,
    command: str = "",
    *,
    notes: Sequence[str] = (),
) -> ToolOutput:
    """A command's result as a tool's output: ``first_line``, ``command`` if given, and its output.

    ``notes`` come before the output, each in brackets. ``lines`` in the data counts the lines of
    output before truncation.

    Raises:
        ToolError: the command was never started.
    """
    if result.exit_code is None and not result.duration_s:
        reason = result.error or "it did not start"
        raise ToolError(f"{command} cannot be run: {reason}" if command else reason)
    head = [first_line, *([f"$ {command}"] if command else []), *(f"[{note}]" for note in notes)]
    room = max(0, limit - sum(len(line) + 1 for line in head) - 10)
    stdout, stderr = plain_output(result.stdout), plain_output(result.stderr)
    text = output_of(stdout, stderr, room)
    data: dict[str, Any] = {
        "exit_code": result.exit_code,
        "duration_s": result.duration_s,
        "lines": _line_count(stdout) + _line_count(stderr),
    }
    if command:
        data["command"] = command
    if result.timed_out:
        data["timed_out"] = True
    if result.memory_exceeded:
        data["memory_exceeded"] = True
    outcome = Outcome.OK if result.success else Outcome.FAILED
    return ToolOutput("\n".join(head + ([text] if text else [])), outcome, data=data)


def shown_command(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """A command as it would be typed into a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    return " ".join([*variables, shlex.join(argv)])
