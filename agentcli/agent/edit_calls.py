"""Calls that are edits: which files they touch, how much they change, and what they must not touch.

Tests rarely distinguish a repair from one that changes more than needed. The smaller of two is more
likely to be right; GenProg minimises its patches for the same reason (Le Goues et al. 2012).
"""

from __future__ import annotations

import json
import re
from typing import Any

from agentcli.diff import changed_tokens
from agentcli.llm.client import ChatResponse
from agentcli.messages import ToolCall
from agentcli.tools.base import ToolKind
from agentcli.tools.registry import Registry

SMALLEST = 2
"""Tokens that change where one stands in the place of another."""

_GUARDED = re.compile(
    r"(^|/)(tests?/|test_[^/]*$|conftest\.py$|(pytest|tox)\.ini$|setup\.cfg$|pyproject\.toml$)"
    r"|_test\.\w+$"
)


class EditCalls:
    """Calls of the editing tools among ``tools``."""

    def __init__(self, tools: Registry) -> None:
        self._tools = tools

    def of(self, response: ChatResponse) -> ToolCall | None:
        """The one edit that an answer consists of, or None."""
        calls = response.message.calls
        if len(calls) != 1 or response.cut_calls:
            return None
        spec = self._tools.spec(calls[0].name)
        return calls[0] if spec is not None and spec.kind is ToolKind.EDIT else None

    def paths(self, call: ToolCall) -> tuple[str, ...]:
        """The files that it touches."""
        spec, arguments = self._tools.spec(call.name), _arguments(call)
        names = spec.path_arguments if spec else ()
        return tuple(arguments[name] for name in names if isinstance(arguments.get(name), str))

    def is_guarded(self, call: ToolCall) -> bool:
        """Whether it would change what it is measured by."""
        return any(is_guarded(path) for path in self.paths(call))

    def size(self, call: ToolCall) -> int:
        """How many tokens it changes; 0 where that cannot be seen."""
        spec, arguments = self._tools.spec(call.name), _arguments(call)
        pairs = spec.variant_of.items() if spec else ()
        texts = [(arguments.get(old), arguments.get(new)) for new, old in pairs]
        return sum(sum(changed_tokens(str(old), str(new))) for old, new in texts)


def is_guarded(path: str) -> bool:
    """Whether a file is a test, or the configuration of tests."""
    return _GUARDED.search(path) is not None


def _arguments(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}
