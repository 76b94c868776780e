"""The grammar of one turn in a family's own syntax: thinking, text, calls of the offered tools.

Written in llguidance's Lark. A mark that is one special token of the tokenizer stands in the
grammar as that token, else as its text; text cannot spell it, so that what is read back as a call
was meant as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from agentcli.errors import ModelError
from agentcli.inference.calls import THINK, CallSyntax
from agentcli.inference.constrain import Grammar
from agentcli.inference.turn import OfferedTool
from agentcli.model.tokenizer import Tokenizer

Thinking = Literal["", "may", "open"]
"""Whether a turn may begin with a block of thinking, or the prompt has opened one."""

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_CALL_ID = {"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"}


def turn_grammar(
    syntax: CallSyntax,
    tools: Sequence[OfferedTool],
    tokenizer: Tokenizer,
    vocab_size: int,
    thinking: Thinking = "",
) -> Grammar:
    """Raises ModelError for a tool whose schema has no grammar."""
    source = "\n".join(_rules(syntax, tools, tokenizer, thinking))
    try:
        return Grammar.lark(source, tokenizer, vocab_size)
    except ModelError as error:
        raise ModelError(f"the tools' schemas: {error.message}") from None


def _rules(
    syntax: CallSyntax, tools: Sequence[OfferedTool], tokenizer: Tokenizer, thinking: Thinking
) -> list[str]:
    special = tokenizer.special

    def mark(text: str) -> str:
        return f"<[{special[text]}]>" if text in special else json.dumps(text)

    # Thinking between marks that are mere text is text to the grammar.
    thinks = all(text in special for text in THINK)
    never = "|".join(_escaped(text) for text in (syntax.open, *(THINK if thinks else ())))
    not_marks = f"& ~/(?s:.*)({never})(?s:.*)/"
    first = r"\s*[^\s{]" if syntax.bare else "(?s:.)"
    rules = [f"TEXT: /{first}(?s:.*)/ {not_marks}"]
    turns = ["TEXT"]
    if tools:
        calls, more = _calls(syntax, tools, mark)
        rules += more
        if syntax.open in special:
            turns.append(f"TEXT? {mark(syntax.open)} {calls}")
        else:
            rules.append(f"head[lazy]: /(?s:.*){_escaped(syntax.open)}/")
            turns.append(f"head {calls}")
        if syntax.bare:
            turns.append("call")
    rules.append(f"turn: {' | '.join(turns)}")
    start = "turn"
    if thinking and thinks:
        begin, end = map(mark, THINK)
        rules += [r"GAP: /\n{0,2}/", f"BODY: /(?s:.*)/ {not_marks}", f"thought: BODY? {end} GAP"]
        start = "thought turn" if thinking == "open" else f"({begin} thought)? turn"
    return [f"start: {start}", *rules]


def _calls(syntax: CallSyntax, tools: Sequence[OfferedTool], mark: Any) -> tuple[str, list[str]]:
    """What follows the opening mark, and the rules that it needs."""
    if not syntax.arguments:
        kinds = [
            f"{json.dumps(tool.name)} {mark(syntax.name_end)} %json {_json(tool.parameters)}"
            for tool in tools
        ]
        return f"call ({mark(syntax.open)} call)*", [f"call: {' | '.join(kinds)}"]
    schema = {"anyOf": [_call_schema(syntax, tool) for tool in tools]}
    rules = [f"call: %json {_json(schema)}"]
    if syntax.listed:
        return '" "? "[" call (", " call)* "]"', rules
    if syntax.close:
        close = mark(syntax.close)
        again = f'"\\n" {mark(syntax.open)} "\\n" call "\\n" {close}'
        return f'"\\n" call "\\n" {close} ({again})*', rules
    if any(tool.name == syntax.code_tool for tool in tools):
        rules.append(r"CODE: /[^\s{;](?s:.*)/")
        return "(call | CODE)", rules
    return "call", rules


def _call_schema(syntax: CallSyntax, tool: OfferedTool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "name": {"const": tool.name},
        syntax.arguments: dict(tool.parameters),
    }
    if syntax.listed:
        properties["id"] = _CALL_ID
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", syntax.arguments],
        "additionalProperties": False,
    }


def _json(schema: Any) -> str:
    return json.dumps({**schema, "x-guidance": _SPACING})


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
