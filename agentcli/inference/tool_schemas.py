"""Offered tools and the JSON Schema of their calls.

Tool schemas come from anywhere. Keywords unknown to llguidance are ignored, and a schema that does
not compile is replaced by that of any object: the dispatcher validates every call anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentcli.errors import ModelError
from agentcli.inference.constrain import Grammar
from agentcli.model.tokenizer import Tokenizer

SPACING: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""Options of llguidance for the spacing of ``json.dumps``."""


@dataclass(frozen=True)
class OfferedTool:
    """A tool that the model may call.

    Attributes:
        name: The tool's name.
        parameters: The JSON Schema of its arguments.
        text_of: Maps an argument to the path argument that names the file it must be copied from.
            If that is empty, the argument must be one of the options in the text.
        variant_of: Maps an argument to the argument that it is a variant of.
    """

    name: str
    parameters: Mapping[str, Any]
    text_of: Mapping[str, str] = field(default_factory=dict)
    variant_of: Mapping[str, str] = field(default_factory=dict)


def one_of(tools: Sequence[OfferedTool], arguments: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a call ``{"name": ..., arguments: ...}`` of any of the tools.

    ``more`` has optional properties of the call.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                arguments: _rebased(tool.parameters, f"#/anyOf/{i}/properties/{arguments}"),
                **more,
            },
            "required": ["name", arguments],
            "additionalProperties": False,
        }
        for i, tool in enumerate(tools)
    ]
    return {"anyOf": calls}


def usable(
    tools: Sequence[OfferedTool], tokenizer: Tokenizer, vocab_size: int
) -> list[OfferedTool]:
    """Return the tools, with parameters that do not compile replaced by any object."""
    found = []
    for tool in tools:
        try:
            Grammar.json_schema(tool.parameters, tokenizer, vocab_size, SPACING)
        except ModelError:
            tool = replace(tool, parameters={"type": "object"})
        found.append(tool)
    return found


def _rebased(schema: Any, place: str) -> Any:
    """Prefix the references of a schema that is embedded at ``place`` in another one."""
    if isinstance(schema, Mapping):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _rebased(value, place)
            for key, value in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_rebased(value, place) for value in schema]
    return schema
