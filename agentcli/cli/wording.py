"""How a run's events are said in words, for a terminal and for plain lines alike.

Pure functions; everything they return is safe to print (``agentcli.text.escape``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentcli.agent.events import CheckFinished, SessionStarted
from agentcli.messages import Outcome, ToolCall, ToolResult, Usage
from agentcli.text import clip, counted, escape, one_line, plain_output

MAX_DIFF_LINES = 40
MAX_OUTPUT_LINES = 6
MAX_ERROR_LINES = 4

_SHOWN_BARE = ("path", "pattern", "command", "code", "expression", "query", "url")
_NOT_SHOWN = ("content", "old", "new")
_READ_KINDS = ("read", "search", "plan")
_LEVELS = {
    "full": "full (own namespaces, nothing outside the workspace can be written)",
    "reduced": "reduced (without bubblewrap; see: agentcli doctor)",
    "none": "none (tools run with your own rights)",
}


@dataclass(frozen=True, slots=True)
class Folded:
    """A result made short: a headline, some lines of it, and how many lines are left out."""

    headline: str
    lines: tuple[str, ...] = ()
    omitted: int = 0


def describe_call(call: ToolCall, width: int = 100) -> str:
    """A call in one line: its name and the arguments that tell most."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        return one_line(escape(f"{call.name} {call.arguments}"), width)
    if not isinstance(arguments, Mapping):
        return one_line(escape(f"{call.name} {call.arguments}"), width)
    bare = [
        _value(arguments[name]) for name in _SHOWN_BARE if arguments.get(name) not in (None, "")
    ]
    named = [
        f"{name}={_value(value)}"
        for name, value in arguments.items()
        if name not in _SHOWN_BARE and name not in _NOT_SHOWN and value is not None
    ]
    return one_line(escape(" ".join([call.name, *bare, *named])), width)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def fold_result(result: ToolResult, kind: str) -> Folded:
    """What of a result is worth a look: edits their headline, commands the end of their output."""
    lines = escape(plain_output(result.content)).rstrip("\n").split("\n")
    if result.outcome is Outcome.OK and kind in _READ_KINDS:
        first = clip(lines[0].replace("\t", "  "), 100)
        return Folded(first if len(lines) == 1 else counted(len(lines), "line"))
    headline = clip(lines[0], 200)
    rest = [clip(line, 200) for line in lines[1:] if line.strip()]
    if result.outcome in (Outcome.OK, Outcome.FAILED):
        shown = rest[-MAX_OUTPUT_LINES:] if kind not in ("edit", *_READ_KINDS) else []
    else:
        shown = rest[:MAX_ERROR_LINES]
    return Folded(headline, tuple(shown), len(rest) - len(shown))


def diff_lines(diff: str) -> Folded:
    """A unified diff without its file header, cut to a length that fits a screen."""
    lines = [line.rstrip("\r") for line in escape(diff).rstrip("\n").split("\n")]
    body = [line for line in lines if not line.startswith(("--- ", "+++ "))]
    return Folded("", tuple(body[:MAX_DIFF_LINES]), max(0, len(body) - MAX_DIFF_LINES))


def session_lines(session: SessionStarted) -> list[str]:
    """What a run begins with."""
    return [
        escape(f"agentcli {session.version} · {session.model} · mode {session.mode}"),
        escape(f"workspace {session.workspace}"),
        f"sandbox {_LEVELS.get(session.sandbox, escape(session.sandbox))}",
    ]


def usage_line(usage: Usage) -> str:
    """Tokens in and out, and how much of the input came from a cache."""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def check_line(check: CheckFinished) -> str:
    """A check and how it ended."""
    ended = "passed" if check.passed else "failed"
    code = "" if check.passed or check.exit_code is None else f" (exit code {check.exit_code})"
    return escape(f"check {ended}{code}: {check.command}")
