"""Splitting streamed answers into text, thinking and calls, wherever the pieces are cut."""

from __future__ import annotations

import pytest

from agentcli.inference.call_syntax import SYNTAXES
from agentcli.inference.calls import CallCursor, CallScanner

CALL = '{"name": "f", "arguments": {"a": "</tool_call> {\\"", "b": [1, {"c": 2}]}}'
ARGUMENTS = '{"a": "</tool_call> {\\"", "b": [1, {"c": 2}]}'

ANSWERS = [
    ("hermes", "Hi  there.\n\n<tool_call>\n" + CALL + "\n</tool_call>\n<tool_call>\n"
     '{"name": "g", "arguments": {}}\n</tool_call>',
     ["text Hi  there.", f"call f {ARGUMENTS}", "call g {}"]),
    ("hermes", "<think>\nhm\n</think>\n\nOK a < b <tool", ["thinking hm", "text OK a < b <tool"]),
    ("hermes", " spaced\n", ["text  spaced\n"]),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": ', ['cut f {"a": ']),
    ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', ['call f {"a": 1}']),
    ("hermes", '<tool_call>{"tool": 3}</tool_call>', ["call invalid_call "]),
    ("hermes", "<tool_call>nothing", ["text nothing"]),
    ("llama3", '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
     ['call f {"a": 1}', "call g {}"]),
    ("llama3", '<|python_tag|>{"name": "f", "parameters": {"x": "y"}}', ['call f {"x": "y"}']),
    ("llama3", "<|python_tag|>print({1})\nx = 'ä'",
     ['call python {"code": "print({1})\\nx = \'ä\'"}']),
    ("llama3", 'a {"name": "f"}', ['text a {"name": "f"}']),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": "]"}, "id": "abc"}, '
     '{"name": "g", "arguments": {}}]', ['call f {"a": "]"}', "call g {}"]),
    ("mistral_args", 'text[TOOL_CALLS]f[ARGS]{"a": {"b": 1}}[TOOL_CALLS]g[CALL_ID]x[ARGS]{}',
     ["text text", 'call f {"a": {"b": 1}}', "call g {}"]),
]  # fmt: skip


def scanned(syntax: str, text: str, size: int, *, thinking: bool = False) -> list[str]:
    scanner = CallScanner(SYNTAXES[syntax], thinking=thinking)
    pieces = [
        piece for at in range(0, len(text), size) for piece in scanner.feed(text[at : at + size])
    ]
    found: list[str] = []
    for piece in [*pieces, *scanner.finish()]:
        match piece.kind:
            case "name":
                found.append(f"cut {piece.text} ")
            case "arguments":
                found[-1] += piece.text
            case "end":
                found[-1] = found[-1].replace("cut", "call", 1)
            case kind if found and found[-1].startswith(kind):
                found[-1] += piece.text
            case kind:
                found.append(f"{kind} {piece.text}")
    return found


@pytest.mark.parametrize(("syntax", "text", "expected"), ANSWERS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_is_split(syntax: str, text: str, expected: list[str], size: int) -> None:
    assert scanned(syntax, text, size) == expected


def test_a_block_that_the_prompt_opened() -> None:
    assert scanned("hermes", "hm\n</think>\n\nyes", 1, thinking=True) == ["thinking hm", "text yes"]


def test_arguments_come_as_they_are_written() -> None:
    scanner = CallScanner(SYNTAXES["hermes"])
    text = '<tool_call>\n{"name": "f", "arguments": {"a": "bcd'
    pieces = [piece for char in text for piece in scanner.feed(char)]
    assert "".join(piece.text for piece in pieces if piece.kind == "arguments") == '{"a": "bcd'


@pytest.mark.parametrize(
    ("syntax", "text", "path", "name"),
    [
        ("hermes", 'x<tool_call>\n{"name": "f", "arguments": {"a": "b"}}\n</tool_call>\n'
         '<tool_call>\n{"name": "g", "arguments": {"old": "q', ("arguments", "old"), "g"),
        ("llama3", '{"name": "f", "parameters": {"old": "q', ("parameters", "old"), "f"),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"a": "b"}}, '
         '{"name": "g", "arguments": {"old": "q', ("arguments", "old"), "g"),
        ("mistral_args", '[TOOL_CALLS]f[ARGS]{"old": "q', ("old",), "f"),
    ],
)  # fmt: skip
def test_a_cursor_knows_the_call_it_is_in(
    syntax: str, text: str, path: tuple[str, ...], name: str
) -> None:
    cursor = CallCursor(SYNTAXES[syntax])
    assert cursor.outside
    for byte in text.encode():
        cursor = cursor.copy()
        cursor.feed(byte)
    assert not cursor.outside
    named = cursor.strings[() if syntax == "mistral_args" else ("name",)]
    assert (cursor.path(), named, bytes(cursor.string or b"")) == (path, name, b"q")
    assert ("arguments", "a") not in cursor.strings
