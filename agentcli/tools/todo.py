"""todo: a to-do list that the model maintains and the user sees."""

from __future__ import annotations

from typing import Any

from agentcli.errors import ToolInputError
from agentcli.prompts import Prompts
from agentcli.text import one_line
from agentcli.tools.base import PLAN, Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.plan import FEWEST

TODO = "todo"
"""Key of a result's ``data``: the items as (text, state)."""

_MARKS = {"pending": "[ ]", "in_progress": "[>]", "done": "[x]"}
_MOST = 40
_PARAMETERS = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "maxItems": _MOST,
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "description": "What is to be done, in one line."},
                    "state": {"type": "string", "enum": list(_MARKS)},
                },
                "required": ["text", "state"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}


async def todo(context: ToolContext, items: list[dict[str, Any]]) -> ToolOutput:
    """Replace the list. One with enough items for a plan counts as a plan too."""
    if sum(item["state"] == "in_progress" for item in items) > 1:
        raise ToolInputError("more than one item is in progress", path="items")
    if not all(item["text"].strip() for item in items):
        raise ToolInputError("an item has no text", path="items")
    lines = [f"{_MARKS[item['state']]} {one_line(item['text'], 200)}" for item in items]
    kept = [(item["text"], item["state"]) for item in items]
    data: dict[str, Any] = {TODO: kept}
    if len(kept) >= FEWEST:
        data[PLAN] = [text for text, _ in kept]
    return ToolOutput("\n".join(lines) or "the list is empty", data=data)


def todo_tool(prompts: Prompts) -> Tool:
    """Make the tool; raises ``ConfigError`` if its prompt is missing."""
    spec = ToolSpec(TODO, prompts.get("tools/todo"), _PARAMETERS, ToolKind.PLAN)
    return Tool(spec, todo)
