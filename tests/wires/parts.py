"""Shared by the wires: splitting a text into deltas, call ids, argument texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.server import Reply


def pieces(text: str, size: int) -> Iterator[str]:
    """Split a text into deltas of ``size`` characters; 0 means an eighth of the text."""
    size = size or max(1, -(-len(text) // 8))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def calls_of(reply: Reply, prefix: str) -> list[tuple[str, str, str]]:
    """The id, name and argument text of every call."""
    found = []
    for index, (name, arguments) in enumerate(reply.calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        call_id = f"{prefix}{index}" if reply.call_ids is None else reply.call_ids[index]
        found.append((call_id, name, text))
    return found


def alternatives_in(tools: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """Faults of tools with alternatives at the top of their schemas."""
    refused = {"anyOf", "oneOf", "allOf", "enum", "const", "not"}
    return [
        f"{tool['name']}: {', '.join(sorted(found))} at the top of its schema"
        for tool in tools
        if (found := refused & tool[key].keys())
    ]
