"""A grammar exists for every tool schema, even an invalid one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentcli.embedded
from agentcli.inference.call_syntax import SYNTAXES
from agentcli.inference.constrain import Constraint
from agentcli.inference.tool_schemas import OfferedTool
from agentcli.inference.turn import call_grammar
from agentcli.inference.turn_grammar import turn_grammar
from agentcli.model.tokenizer import Tokenizer, load_tokenizer

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
SCHEMAS: dict[str, dict[str, Any]] = {
    # As MCP servers in Python write them: with definitions, one of them recursive.
    "refers": {"properties": {"p": {"$ref": "#/$defs/P"}, "next": {"$ref": "#"}},
               "required": ["p"], "$defs": {"P": {**POINT, "additionalProperties": False}}},
    "unknown keyword": {"properties": {"p": POINT}, "required": ["p"], "not": {"const": 1}},
    "no pattern": {"properties": {"p": {"type": "string", "pattern": "^(?!a)"}}},
    "dangling": {"properties": {"p": {"$ref": "#/$defs/Nothing"}}},
    "no type": {"properties": {"p": {"type": "text"}}},
}  # fmt: skip
VALUE = {"p": {"x": 1}}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(agentcli.embedded.__file__).parent)


def takes(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    for token in tokenizer.encode_template(text):
        allowed = constraint.allowed()
        if allowed is not None and not allowed[token]:
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize("name", SCHEMAS)
def test_calls_of_every_schema_can_be_written(name: str, tokenizer: Tokenizer) -> None:
    good = OfferedTool("good", {"type": "object", **POINT, "additionalProperties": False})
    tools = [good, OfferedTool("odd", {"type": "object", **SCHEMAS[name]})]
    size = tokenizer.vocab_size
    call = json.dumps({"name": "odd", "arguments": VALUE})
    wrong = json.dumps({"name": "good", "arguments": {"x": "no integer"}})
    hermes = "<tool_call>\n{}\n</tool_call>".format
    for grammar, written in (
        (call_grammar(tools, tokenizer, size), str),
        (turn_grammar(SYNTAXES["hermes"], tools, tokenizer, size), hermes),
    ):
        assert takes(grammar.constraint(), tokenizer, written(call))
        # An unenforceable schema does not affect the other tools.
        assert not takes(grammar.constraint(), tokenizer, written(wrong))


def test_what_a_schema_refers_to_is_enforced(tokenizer: Tokenizer) -> None:
    tools = [OfferedTool("other", {"type": "object"}), OfferedTool("odd", SCHEMAS["refers"])]
    for name, syntax in SYNTAXES.items():
        if name == "qwen_coder":
            continue
        grammar = turn_grammar(syntax, tools, tokenizer, tokenizer.vocab_size)
        key = syntax.arguments
        for value, good in (({"x": 1}, True), ({"x": "a"}, False)):
            inner = json.dumps({"p": value, "next": {"p": value}})
            call = f'{{"name": "odd", "{key}": {inner}}}' if key else f"odd{syntax.name_end}{inner}"
            if syntax.listed:
                call = f"[{call}]"
            if syntax.close:
                call = f"\n{call}\n{syntax.close}"
            assert takes(grammar.constraint(), tokenizer, syntax.open + call) is good, name
