"""Converts past calls to a form that every provider accepts.

A model may call a tool by an invalid name or write arguments that are not a JSON object. It is
told so, but its call must still go back with the history, and many servers reject it as written.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agentcli.llm.wire_cache import dumps

INVALID_JSON = "INVALID_JSON"
"""The key that holds the text of arguments that are not a JSON object."""

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


def safe_name(name: str) -> str:
    """A tool's name, restricted to the characters and length that every provider allows."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "unnamed"


def argument_object(arguments: str) -> dict[str, Any]:
    """The arguments as an object, whatever the model wrote."""
    if not arguments.strip():
        return {}
    try:
        # Allow line breaks inside strings, as the tools do.
        value = json.loads(arguments, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {INVALID_JSON: arguments}
    if value is None:
        return {}
    return value if isinstance(value, dict) else {INVALID_JSON: arguments}


def argument_text(arguments: str) -> str:
    """The arguments as written if they are a JSON object, else converted to one."""
    try:
        if isinstance(json.loads(arguments, parse_constant=_refuse), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    return dumps(argument_object(arguments)).decode()


def _refuse(constant: str) -> None:
    raise ValueError(constant)
