"""The gist of an old tool result, by the kind of its tool.

A check keeps its verdict and failures, a search the counts per file, a file its definitions, and a
command the end of its output.
"""

from __future__ import annotations

import re
from collections import Counter

from agentcli.text import clip, counted
from agentcli.tools.base import ToolKind

_LINES = 30
_WIDTH = 200
_FAILURE = re.compile(
    r"\b(fail(ed|ure|ures|s|ing)?|errors?|exception|panic(ked)?|fatal|assert(ion)?)\b"
    r"|^E\s|^\S+:\d+(:\d+)?:|^(FAILED|ERROR|FAIL|error\[)",
    re.IGNORECASE,
)
_MATCH = re.compile(r"(?P<path>[^\s:][^:]*):\d+: ")
_DEFINITION = re.compile(
    r"^(\d+\t)?\s*(?:export |pub |public |private |static |async |abstract |default )*"
    r"(def|class|function|fn|func|impl|interface|struct|enum|trait|type|module|package)\b"
)


def gist(kind: ToolKind | None, content: str) -> str:
    """A shorter form of a result; the content itself if it is already short."""
    lines = content.split("\n")
    if len(lines) <= 4:
        return content
    match kind:
        case ToolKind.CHECK:
            return _failures(lines)
        case ToolKind.SEARCH:
            return _counts(lines)
        case ToolKind.READ:
            return _outline(lines)
        case ToolKind.RUN:
            return _end(lines)
        case _:
            return content


def _failures(lines: list[str]) -> str:
    verdict, *rest = lines
    found = [clip(line, _WIDTH) for line in rest if _FAILURE.search(line)]
    shown = [*dict.fromkeys(found)]
    last = next((clip(line, _WIDTH) for line in reversed(rest) if line.strip()), "")
    if last not in shown[:_LINES]:
        shown = [*shown[: _LINES - 1], last]
    kept = [verdict, *shown[:_LINES]]
    return "\n".join([*kept, f"[{counted(len(lines) - len(kept), 'other line')} left out]"])


def _counts(lines: list[str]) -> str:
    per_file = Counter(found["path"] for line in lines if (found := _MATCH.match(line)))
    if per_file:
        shown = [
            f"{path}: {counted(n, 'match', 'matches')}" for path, n in per_file.most_common(20)
        ]
        more = len(per_file) - len(shown)
        return "\n".join([*shown, *([f"[{counted(more, 'more file')}]"] if more else [])])
    first = ", ".join(clip(line, 60) for line in lines[:8])
    return f"{counted(len(lines), 'entry', 'entries')}: {first}, ..."


def _outline(lines: list[str]) -> str:
    found = [clip(line, _WIDTH) for line in lines if _DEFINITION.match(line)]
    head = f"[{counted(len(lines), 'line')} were read; read them again if you need them]"
    return "\n".join([head, *found[:_LINES]])


def _end(lines: list[str]) -> str:
    """Keep the first line, which is the exit code, and the last lines."""
    tail = [clip(line, _WIDTH) for line in lines[-12:]]
    if len(lines) <= len(tail) + 2:
        return "\n".join(lines)
    left_out = len(lines) - 1 - len(tail)
    return "\n".join([lines[0], f"[{counted(left_out, 'line')} left out]", *tail])
