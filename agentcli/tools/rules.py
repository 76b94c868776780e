"""Rules: which calls are allowed, asked about or refused, by tool and pattern.

``TOOL`` or ``TOOL(PATTERN)``, as in ``shell(git status:*)`` and ``read_file(src/**)``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """``pattern`` of None means every call of the tool."""

    tool: str
    pattern: str | None = None

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"
