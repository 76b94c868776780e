"""Edit calls: the files they touch, the size of their changes, and the files they must not touch.

Tests rarely tell a minimal repair from one that changes more than needed. The smaller of two edits
is more likely to be right; GenProg minimises patches for the same reason (Le Goues et al. 2012).
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
"""The size of an edit that replaces one token with another."""

_GUARDED = re.compile(
    r"(^|/)(tests?/|test_[^/]*$|tests?\.py$|conftest\.py$|\.?pytest\.(ini|toml)$|tox\.ini$"
    r"|setup\.cfg$|pyproject\.toml$)"
    r"|_test\.\w+$"
)


class EditCalls:
    """Inspects calls of the editing tools among ``tools``."""

    def __init__(self, tools: Registry) -> None:
        self._tools = tools

    def of(self, response: ChatResponse) -> ToolCall | None:
        """The edit, if the answer consists of exactly one; otherwise None."""
        calls = response.message.calls
        if len(calls) != 1 or response.cut_calls:
            return None
        spec = self._tools.spec(calls[0].name)
        return calls[0] if spec is not None and spec.kind is ToolKind.EDIT else None

    def paths(self, call: ToolCall) -> tuple[str, ...]:
        """The files that the call touches."""
        spec, arguments = self._tools.spec(call.name), arguments_of(call)
        names = spec.path_arguments if spec else ()
        return tuple(arguments[name] for name in names if isinstance(arguments.get(name), str))

    def is_guarded(self, call: ToolCall) -> bool:
        """Whether the call would change a file that its result is measured by."""
        return any(is_guarded(path) for path in self.paths(call))

    def size(self, call: ToolCall) -> int:
        """How many tokens the call changes; 0 if its arguments do not show that."""
        spec, arguments = self._tools.spec(call.name), arguments_of(call)
        pairs = spec.variant_of.items() if spec else ()
        texts = [(arguments.get(old), arguments.get(new)) for new, old in pairs]
        return sum(sum(changed_tokens(str(old), str(new))) for old, new in texts)


def is_guarded(path: str) -> bool:
    """Whether a file is a test or configures tests."""
    return _GUARDED.search(path) is not None


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call; none if they are not a JSON object."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}
