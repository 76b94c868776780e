"""Calls of a history in a form that every provider takes back.

A model may call a tool by an impossible name, or write arguments that are no JSON object. It is
told so, but what it wrote must go back with the history, and many servers refuse it as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agentcli.llm.wire_cache import dumps

INVALID_JSON = "INVALID_JSON"
"""Holds the text of arguments that are no JSON object."""

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


def safe_name(name: str) -> str:
    """A tool's name in the letters and the length that are allowed everywhere."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "unnamed"


def argument_object(arguments: str) -> dict[str, Any]:
    """The arguments as an object, whatever was written."""
    if not arguments.strip():
        return {}
    try:
        # Line breaks inside strings are taken for what they mean, as the tools do.
        value = json.loads(arguments, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {INVALID_JSON: arguments}
    if value is None:
        return {}
    return value if isinstance(value, dict) else {INVALID_JSON: arguments}


def argument_text(arguments: str) -> str:
    """The arguments as the model wrote them if that is a JSON object, else as one."""
    try:
        if isinstance(json.loads(arguments, parse_constant=_refuse), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    return dumps(argument_object(arguments)).decode()


def _refuse(constant: str) -> None:
    raise ValueError(constant)
