"""Calls written as tags: parsed to JSON, tracked byte by byte, and constrained to be valid."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from agentcli.inference.call_syntax import SYNTAXES
from agentcli.inference.calls import CallCursor, CallScanner
from agentcli.inference.engine import Engine
from agentcli.inference.sampling import Sampling
from agentcli.inference.speculate import Lookup
from agentcli.inference.substring import CopyConstraint
from agentcli.inference.tagged import kinds, value_of
from agentcli.inference.tool_schemas import OfferedTool
from agentcli.inference.turn import text_for
from agentcli.inference.turn_grammar import turn_grammar
from agentcli.model.tokenizer import TiktokenTokenizer
from tests.inference.conftest import make_engine
from tests.model.test_tokenizer import PATTERN, RANKS

SYNTAX = SYNTAXES["qwen_coder"]
SCHEMAS: dict[str, dict[str, Any]] = {
    "f": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "ratio": {"type": "number"},
            "flag": {"type": "boolean"},
            "items": {"$ref": "#/$defs/Items"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "mode": {"enum": ["a", "b c"]},
        },
        "required": ["text", "count", "mode"],
        "$defs": {"Items": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}},
        "additionalProperties": False,
    },
    "free": {"type": "object"},
    "none": {"type": "object", "properties": {}, "additionalProperties": False},
}


def call(name: str, **values: str) -> str:
    parts = [f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items()]
    return f"<tool_call>\n<function={name}>\n{''.join(parts)}</function>\n</tool_call>"


def read(text: str, size: int) -> tuple[str, list[tuple[str, str, bool]]]:
    """The text around the calls, and each call's name, arguments and completeness."""
    scanner = CallScanner(SYNTAX, schemas=PARAMETERS)
    said = ""
    calls: list[tuple[str, str, bool]] = []
    pieces = [p for at in range(0, len(text), size) for p in scanner.feed(text[at : at + size])]
    for piece in [*pieces, *scanner.finish()]:
        match piece.kind:
            case "text":
                said += piece.text
            case "name":
                calls.append((piece.text, "", False))
            case "arguments":
                name, arguments, _ = calls[-1]
                calls[-1] = (name, arguments + piece.text, False)
            case "end":
                calls[-1] = (*calls[-1][:2], True)
    return said, calls


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_calls_are_read(size: int) -> None:
    text = "if a < b:\n    print(\"</param\", 'ä\\n')\n\n"
    whole = call("f", text=text, count="3", ratio="1.5", flag="True", items="[1, 2]", maybe="null")
    answer = f"Look:\n\n{whole}\n{call('free', x='1')}\n{call('none')}"
    said, calls = read(answer, size)
    assert said == "Look:"
    given = [(name, json.loads(arguments)) for name, arguments, done in calls if done]
    assert given == [
        ("f", {"text": text, "count": 3, "ratio": 1.5, "flag": True, "items": [1, 2],
               "maybe": None}),
        ("free", {"x": "1"}),
        ("none", {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name", "arguments"),
    [
        ("<tool_call>\n<function=f>\n<parameter=text>\nab", "f", '{"text": "'),
        ("<tool_call>\n<function=f>\n<parameter=count>\n12", "f", '{"count": '),
        ("<tool_call>\n<function=f>\n", "f", "{"),
    ],
)
def test_a_call_that_was_cut_has_no_end(written: str, name: str, arguments: str) -> None:
    ((found, begun, whole),) = read(written, 1)[1]
    assert (found, whole) == (name, False) and begun.startswith(arguments)


def test_what_is_no_call() -> None:
    assert read("<tool_call>\n</tool_call>", 1)[1] == [("invalid_call", "{}", True)]
    assert read("<tool_call>\nnothing", 1) == ("\nnothing", [])
    said, calls = read(call("f", text="x") + "\nand on", 1)
    assert (said, len(calls)) == ("and on", 1)


def test_text_comes_as_it_is_written() -> None:
    scanner = CallScanner(SYNTAX, schemas=SCHEMAS)
    begun = call("f", text="a" * 40).partition("\n</parameter>")[0]
    pieces = [piece.text for piece in scanner.feed(begun) if piece.kind == "arguments"]
    assert 20 < "".join(pieces).count("a") < 40  # the last ones may begin the end tag


def test_what_a_value_stands_for() -> None:
    root = SCHEMAS["f"]
    properties = root["properties"]
    assert kinds(properties["items"], root) == {"array"}
    assert kinds({"anyOf": [{"type": "string"}, {}]}, root) == set()
    assert kinds({"$ref": "#/$defs/Loop"}, {"$defs": {"Loop": {"$ref": "#/$defs/Loop"}}}) == set()
    assert value_of("12", properties["text"], root) == "12"
    assert value_of("12", properties["maybe"], root) == "12"
    assert value_of("None", properties["maybe"], root) is None
    assert value_of("3", properties["ratio"], root) == 3
    assert value_of("three", properties["count"], root) == "three"
    assert value_of("{}", {}, root) == "{}"


def test_a_cursor_follows() -> None:
    cursor = CallCursor(SYNTAX)
    assert cursor.outside
    text = "hi\n" + call("f", path="a<b>.py", old="x\n</para")
    at = text.index("\n</para\n")
    for byte in text[:at].encode():
        cursor = cursor.copy()
        cursor.feed(byte)
    assert not cursor.outside and cursor.path() == ("old",)
    assert cursor.strings == {(): "f", ("path",): "a<b>.py"} and bytes(cursor.string or b"") == b"x"
    for byte in text[at:].encode():
        cursor.feed(byte)
    assert cursor.outside


FILES = {"a.py": "def f():\n</parameter x\n\n</par\n\ndef g():\n", "b.py": "aaaaaaab"}
EDIT = OfferedTool(
    "edit",
    {
        "type": "object",
        "properties": {
            "path": {"enum": [*FILES]},
            "old": {"type": "string"},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["path", "old", "count"],
        "additionalProperties": False,
    },
    {"old": "path"},
)
PARAMETERS = {**SCHEMAS, "edit": EDIT.parameters}
TOOLS = (EDIT, *(OfferedTool(name, schema) for name, schema in SCHEMAS.items()))


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine with tokens that close a value, begin to close it, or cross its end."""
    ranks = dict(RANKS)
    for data in (b"\n</parameter>", b"\n</", b"parameter>", b"):\n", b">\n\n", b"aab\n<"):
        ranks.setdefault(data, len(ranks))
    tokenizer = TiktokenTokenizer.nanochat(ranks, PATTERN)
    small = make_engine(
        vocab_size=tokenizer.vocab_size, n_layer=1, n_embd=32, n_head=2, n_kv_head=1
    )
    return Engine(small.model, tokenizer)


@pytest.mark.parametrize("offered", ["edit", "f", "free"])
def test_every_call_is_valid_and_copies_what_it_must(engine: Engine, offered: str) -> None:
    tokenizer = engine.tokenizer
    tools = [tool for tool in TOOLS if tool.name in (offered, "none")]
    grammar = turn_grammar(SYNTAX, tools, tokenizer, tokenizer.vocab_size)
    ask = text_for(tools, lambda _, given: FILES[given["path"]], (), plain=True)
    # Closing tags are likely, so that values end.
    marks = (b"\n</parameter>", b"\n</")
    likely = {i: 6.0 for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) in marks}
    checked = 0
    for seed in range(6):
        constraint = CopyConstraint(grammar.constraint(), tokenizer, ask, CallCursor(SYNTAX))
        for token in tokenizer.encode("<tool_call>"):
            allowed = constraint.allowed()
            assert allowed is not None and allowed[token]
            constraint.accept(token)
        generation = engine.generate(
            [1, 2],
            max_tokens=250,
            sampling=Sampling(seed=seed, temperature=1.5, logit_bias=likely),
            constraint=constraint,
            lookup=Lookup(draft=4, shortest=1) if seed % 2 else None,
        )
        tokens = [column[0] for column, _ in generation]
        _, calls = read("<tool_call>" + tokenizer.decode(tokens), 1000)
        for name, arguments, whole in calls:
            if not whole:
                continue
            given = json.loads(arguments)
            jsonschema_rs.validate(dict(PARAMETERS[name]), given)
            checked += name == offered
            if name == "edit":
                assert FILES[given["path"]].count(given["old"]) == 1
    assert checked
