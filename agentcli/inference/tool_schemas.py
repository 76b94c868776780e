"""Tools as a grammar of their calls takes them.

Schemas come from anywhere. A keyword that grammars do not know is left out, and a schema that has
no grammar at all becomes that of any object: whoever dispatches a call checks it anyway.
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
"""As ``json.dumps`` writes it."""


@dataclass(frozen=True)
class OfferedTool:
    """``text_of`` maps an argument to the path argument of whose file it must be a piece.

    Where it names none, the argument is one line of the text. ``variant_of`` maps an argument to
    the one of which it is a variant.
    """

    name: str
    parameters: Mapping[str, Any]
    text_of: Mapping[str, str] = field(default_factory=dict)
    variant_of: Mapping[str, str] = field(default_factory=dict)


def one_of(tools: Sequence[OfferedTool], arguments: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a call ``{"name": ..., arguments: ...}`` of any of the tools; ``more`` are
    optional properties."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                arguments: _moved(tool.parameters, f"#/anyOf/{i}/properties/{arguments}"),
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
    """The tools, any object for those whose parameters have no grammar."""
    found = []
    for tool in tools:
        try:
            Grammar.json_schema(tool.parameters, tokenizer, vocab_size, SPACING)
        except ModelError:
            tool = replace(tool, parameters={"type": "object"})
        found.append(tool)
    return found


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands at ``place`` of another one: what it refers to is there as well."""
    if isinstance(schema, Mapping):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_moved(value, place) for value in schema]
    return schema
