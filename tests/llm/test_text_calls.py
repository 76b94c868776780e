"""Tool calls in text: four forms, the mistakes that models make, and text that is no call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcli.llm.text_calls import Form, parse, write
from agentcli.messages import ToolDefinition


def definition(name: str, required: list[str], **properties: str) -> ToolDefinition:
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": required,
    }
    return ToolDefinition(name, f"{name} it", schema)


TOOLS = (
    definition("read_file", ["path"], path="string", start="integer"),
    definition("write_file", ["path", "content"], path="string", content="string"),
    definition("plan", ["steps"], steps="array"),
    definition("run_tests", []),
)


def calls(form: Form, text: str) -> list[tuple[str, Any]]:
    """The name and arguments of each call; arguments that are not JSON stay text."""
    found = []
    for call in parse(form, text, TOOLS).calls:
        try:
            found.append((call.name, json.loads(call.arguments)))
        except ValueError:
            found.append((call.name, call.arguments))
    return found


READ = [("read_file", {"path": "a.py"})]
BOTH = [("read_file", {"path": "a.py", "start": 3}), ("run_tests", {})]

WHOLE: dict[Form, list[tuple[str, list[tuple[str, Any]]]]] = {
    "react": [
        ('Thought: look\nAction: read_file\nAction Input: {"path": "a.py"}', READ),
        ('Action: read_file\nAction Input: {"path": "a.py"}\nObservation: made up', READ),
        ('**Action:** read_file\n**Action Input:** {"path": "a.py"}', READ),
        ("Action: `read_file`\nAction Input: a.py", READ),
        ('Action: read_file(path="a.py")', READ),
        ('Action: read_file\nAction Input:\n```json\n{"path": "a.py"}\n```', READ),
        ('action: read_file\naction input: {\n  "path": "a.py"\n}\n', READ),
        ("Thought: all\nAction: run_tests", [("run_tests", {})]),
    ],
    "json": [
        ('Look:\n```json\n{"tool": "read_file", "arguments": {"path": "a.py"}}\n```', READ),
        ('{"name": "read_file", "parameters": {"path": "a.py"}}', READ),
        ('I look. {"tool": "read_file", "args": {"path": "a.py"}} and wait', READ),
        ('```\n{"tool": "read_file", "arguments": "{\\"path\\": \\"a.py\\"}"}\n```', READ),
        (
            '[{"tool": "read_file", "arguments": {"path": "a.py", "start": 3}}, '
            '{"tool": "run_tests"}]',
            BOTH,
        ),
        (
            '```json\n{"tool": "read_file", "arguments": {"path": "a.py", "start": 3}}\n```\n'
            '```json\n{"tool": "run_tests", "arguments": {}}\n```',
            BOTH,
        ),
    ],
    "xml": [
        ('Look:\n<tool name="read_file">\n<path>a.py</path>\n</tool>', READ),
        ("<function=read_file><parameter=path>\na.py\n</parameter></function>", READ),
        ('<tool_call>{"name": "read_file", "arguments": {"path": "a.py"}}</tool_call>', READ),
        ('<invoke name="read_file"><parameter name="path">a.py</parameter></invoke>', READ),
        (
            "<tool_call>\n<function=read_file><parameter=path>a.py</parameter></function>\n"
            "</tool_call>",
            READ,
        ),
        (
            "<tool name='read_file'><path>a.py</path><start>3</start></tool>\n"
            '<tool name="run_tests"></tool>',
            BOTH,
        ),
        (
            '<tool name="write_file"><path>x.html</path>\n'
            "<content>\n<b>1 & 2</b>\n</content></tool>",
            [("write_file", {"path": "x.html", "content": "<b>1 & 2</b>"})],
        ),
        (
            '<tool name="plan"><steps>["a", "b"]</steps></tool>',
            [("plan", {"steps": ["a", "b"]})],
        ),
    ],
    "function": [
        ('Look:\n```call\nread_file(path="a.py")\n```', READ),
        ('read_file("a.py")', READ),
        ('I look.\nread_file(path="a.py")\n', READ),
        ('```call\nread_file(path="a.py", start=3)\nrun_tests()\n```', BOTH),
        (
            "```python\nwrite_file(path='a', content='''def f():\n    g(1)\n''')\n```",
            [("write_file", {"path": "a", "content": "def f():\n    g(1)\n"})],
        ),
        ('plan(steps=["a (one)", "b"])', [("plan", {"steps": ["a (one)", "b"]})]),
    ],
}

CUT: dict[Form, list[tuple[str, list[tuple[str, Any]]]]] = {
    "react": [('Action: read_file\nAction Input: {"path": "a.py"', READ)],
    "json": [
        ('```json\n{"tool": "read_file", "arguments": {"path": "a.py"', READ),
        ('{"tool": "read_file", "arguments": {"path": "a.py"}', READ),
        ('```json\n{"tool": "read_file", "arguments": {"path": "a.py",\n', READ),
        (
            '[{"tool": "read_file", "arguments": {"path": "a.py", "start": 3}}, '
            '{"tool": "run_tests"',
            BOTH,
        ),
    ],
    "xml": [
        ('<tool name="read_file"><path>a.py</path>', READ),
        ('<tool_call>{"name": "read_file", "arguments": {"path": "a.py"}', READ),
    ],
    "function": [('```call\nread_file(path="a.py"', READ), ('read_file(path="a.py"\n', READ)],
}
"""Calls that are only unclosed are recovered."""

BROKEN: dict[Form, str] = {
    "react": 'Action: write_file\nAction Input: {"path": "a.py", "content": "half of',
    "json": '```json\n{"tool": "write_file", "arguments": {"path": "a.py", "content": "half of',
    "xml": '<tool name="write_file"><path>a.py</path><content>half of',
    "function": '```call\nwrite_file(path="a.py", content="half of',
}
"""Calls with a truncated value are rejected, because writing half a file would be wrong."""

PROSE: dict[Form, list[str]] = {
    "react": ["The action is done.", "Use `Action` for it"],
    "json": ['The settings are {"port": 80}.', "```python\nx = {}\n```", "[1, 2]", "a[0] = {b}"],
    "xml": ["a <b>bold</b> word", "if x < tool and y > 3", "<parameter>"],
    "function": ["Call read_file(...) to see", "print('hi')", "```python\nmain()\n```"],
}


def rows(table: dict[Form, Any]) -> list[Any]:
    return [(form, row) for form, group in table.items() for row in group]


@pytest.mark.parametrize(("form", "row"), rows(WHOLE))
def test_a_whole_call(form: Form, row: tuple[str, Any]) -> None:
    assert calls(form, row[0]) == row[1]


@pytest.mark.parametrize(("form", "row"), rows(CUT))
def test_what_is_only_not_closed_is_recovered(form: Form, row: tuple[str, Any]) -> None:
    assert calls(form, row[0]) == row[1]


@pytest.mark.parametrize("form", BROKEN)
def test_a_value_that_was_cut_is_never_taken_for_whole(form: Form) -> None:
    ((name, arguments),) = calls(form, BROKEN[form])
    assert name == "write_file" and isinstance(arguments, str)


@pytest.mark.parametrize(("form", "text"), rows(PROSE))
def test_prose_is_no_call(form: Form, text: str) -> None:
    parsed = parse(form, text, TOOLS)
    assert parsed.calls == () and parsed.text == text


@pytest.mark.parametrize("form", WHOLE)
def test_a_call_that_is_written_reads_the_same(form: Form) -> None:
    given = {"path": "a.py", "content": 'say "hi"\n\\n <b>\n'}
    if form == "function":
        given["content"] += "'''"
    ((name, arguments),) = calls(form, "I write.\n" + write(form, "write_file", json.dumps(given)))
    assert (name, arguments) == ("write_file", given)


class TestReact:
    def test_the_final_answer_is_the_answer(self) -> None:
        parsed = parse("react", "Thought: known\nFinal Answer: It is 3.\nReally.", TOOLS)
        assert parsed.text == "It is 3.\nReally." and parsed.calls == ()

    def test_an_answer_after_an_action_is_made_up(self) -> None:
        text = "Action: run_tests\nAction Input: {}\nObservation: ok\nFinal Answer: passed"
        assert calls("react", text) == [("run_tests", {})]

    def test_the_thought_stays(self) -> None:
        parsed = parse("react", "Thought: look\nAction: run_tests\nAction Input: {}", TOOLS)
        assert parsed.text == "Thought: look\n"
