"""The grammar of one turn in a model family's own syntax: thinking, text and tool calls.

It is written in llguidance's Lark dialect. A mark that is a special token of the tokenizer appears
as that token, any other mark as its text. Free text cannot contain a mark, so that everything
parsed as a call was meant as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agentcli.errors import ModelError
from agentcli.inference.call_syntax import THINK, CallSyntax
from agentcli.inference.constrain import Grammar
from agentcli.inference.tagged import CLOSE, FUNCTION_END, VALUE_END, is_text
from agentcli.inference.tool_schemas import SPACING, OfferedTool, one_of, usable
from agentcli.model.tokenizer import Tokenizer

Thinking = Literal["", "may", "open"]
"""No thinking; the turn may begin with a thinking block; or the prompt has opened one."""

_CALL_ID = {"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"}


def turn_grammar(
    syntax: CallSyntax,
    tools: Sequence[OfferedTool],
    tokenizer: Tokenizer,
    vocab_size: int,
    thinking: Thinking = "",
) -> Grammar:
    """Compile the grammar of a turn with calls of ``tools``.

    Raises:
        ModelError: it does not compile.
    """

    def made(tools: Sequence[OfferedTool]) -> Grammar:
        rules = _rules(syntax, tools, tokenizer, thinking)
        return Grammar.lark("\n".join(rules), tokenizer, vocab_size)

    try:
        return made(tools)
    except ModelError:
        return made(usable(tools, tokenizer, vocab_size))


def _rules(
    syntax: CallSyntax, tools: Sequence[OfferedTool], tokenizer: Tokenizer, thinking: Thinking
) -> list[str]:
    special = tokenizer.special

    def mark(text: str) -> str:
        return f"<[{special[text]}]>" if text in special else json.dumps(text)

    # If the thinking marks are not special tokens, thinking counts as text.
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
    """Return the expression for what follows the opening mark, and the rules it uses."""
    if syntax.tagged:
        close = mark(syntax.close)
        again = f'"\\n" {mark(syntax.open)} "\\n" call "\\n" {close}'
        return f'"\\n" call "\\n" {close} ({again})*', _tagged_rules(tools)
    if not syntax.arguments:
        kinds = [
            f"{json.dumps(tool.name)} {mark(syntax.name_end)} %json {_json(tool.parameters)}"
            for tool in tools
        ]
        return f"call ({mark(syntax.open)} call)*", [f"call: {' | '.join(kinds)}"]
    more = {"id": _CALL_ID} if syntax.listed else {}
    rules = [f"call: %json {_json(one_of(tools, syntax.arguments, more))}"]
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


def _tagged_rules(tools: Sequence[OfferedTool]) -> list[str]:
    """Return the rules of a tagged call: arguments in the schema's order, with text unescaped."""
    within = rf"/(?s:.*){_escaped(CLOSE)}(?s:.+)/"  # a closing tag within the value
    rules = [rf"value[lazy]: /(?s:.*){_escaped(VALUE_END)}/ & ~{within}"]
    calls = []
    for i, tool in enumerate(tools):
        schema = tool.parameters
        required = set(schema.get("required", ()))
        properties = schema.get("properties") or {}
        parts = []
        for j, (name, property_) in enumerate(properties.items()):
            rules.append(f"a{i}_{j}: {_tagged_argument(name, property_, schema)}")
            parts.append(f"a{i}_{j}" if name in required else f"a{i}_{j}?")
        if not properties and schema.get("additionalProperties", True) is not False:
            rules.append(f'a{i}: "<parameter=" /[^<>\\s]+/ ">\\n" value "\\n"')
            parts.append(f"a{i}*")
        head = json.dumps(f"<function={tool.name}>\n", ensure_ascii=False)
        calls.append(" ".join([head, *parts, json.dumps(FUNCTION_END)]))
    return [*rules, f"call: {' | '.join(calls)}"]


def _tagged_argument(name: str, schema: Any, root: Mapping[str, Any]) -> str:
    head = json.dumps(f"<parameter={name}>\n", ensure_ascii=False)
    end = json.dumps(VALUE_END + "\n")
    choices = schema.get("enum") if isinstance(schema, Mapping) else None
    if choices and all(isinstance(choice, str) for choice in choices):
        spelled = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
        return f"{head} ({spelled}) {end}"
    if is_text(schema, root):
        return f'{head} value "\\n"'
    within = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return f"{head} %json {_json({**within, **schema})} {end}"


def _json(schema: Any) -> str:
    return json.dumps({**schema, "x-guidance": dict(SPACING)})


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")
