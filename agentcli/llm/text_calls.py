"""Parses tool calls in the text of models without native tool calls, in four forms.

    react     Thought: ... / Action: NAME / Action Input: {...} / Final Answer: ...
    json      {"tool": NAME, "arguments": {...}}, in a fence or alone
    xml       <tool name="NAME"><argument>value</argument></tool>
    function  NAME(argument="value")

The most common mistake of models is a missing last bracket, tag or fence, which is added. An
unterminated string is not closed, because its content may be incomplete: such a call keeps its
broken arguments, and the model is told about them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agentcli.inference.tagged import value_of
from agentcli.messages import ToolDefinition

Form: TypeAlias = Literal["react", "json", "xml", "function"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call; ``arguments`` is JSON text, possibly broken."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text before the calls in an answer, and the calls; without calls, the whole text."""

    text: str
    calls: tuple[Call, ...] = ()


MARKS: Mapping[Form, re.Pattern[str]] = {
    "react": re.compile(r"^\s*\**(Thought|Action|Final Answer|Observation)\**\s*:", re.IGNORECASE),
    "json": re.compile(r"^\s*(```|[\[{])"),
    "xml": re.compile(r"<(tool|tool_call|function|invoke)\b"),
    "function": re.compile(r"^\s*(```|\w+\s*\()"),
}
"""Matches a line that may begin a call; everything before it is text."""


def parse(form: Form, text: str, tools: Sequence[ToolDefinition] = ()) -> Parsed:
    """Parse the calls in a whole answer, in order; ``tools`` are the tools it may call."""
    readers: Mapping[Form, Callable[[str, Mapping[str, ToolDefinition]], Parsed]] = {
        "react": _react,
        "json": _json,
        "xml": _xml,
        "function": _function,
    }
    return readers[form](text, {tool.name: tool for tool in tools})


def write(form: Form, name: str, arguments: str) -> str:
    """Write a call as the model would have written it."""
    match form:
        case "react":
            return f"Action: {name}\nAction Input: {arguments}"
        case "json":
            return f'```json\n{{"tool": {json.dumps(name)}, "arguments": {arguments}}}\n```'
        case "xml":
            lines = [f"<{key}>{_plain(value)}</{key}>" for key, value in _object(arguments).items()]
            return "\n".join([f'<tool name="{name}">', *lines, "</tool>"])
        case "function":
            given = ", ".join(f"{key}={value!r}" for key, value in _object(arguments).items())
            return f"```call\n{name}({given})\n```"


# -- ReAct ------------------------------------------------------------------------------------

_LABEL = re.compile(
    r"^\s*\**(Thought|Action Input|Action|Final Answer|Observation)\**\s*:\**[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)


def _react(text: str, tools: Mapping[str, ToolDefinition]) -> Parsed:
    """Parse the first action; anything a model writes after it is made up."""
    labels = list(_LABEL.finditer(text))
    parts: list[tuple[str, str, int]] = []
    for number, mark in enumerate(labels):
        end = labels[number + 1].start() if number + 1 < len(labels) else len(text)
        parts.append((mark[1].lower(), text[mark.end() : end].strip(), mark.start()))
    for number, (label, content, start) in enumerate(parts):
        if label == "final answer":
            rest = text[labels[number].end() :].strip()
            return Parsed(text[: labels[0].start()] + rest)
        if label == "action" and content:
            following = parts[number + 1] if number + 1 < len(parts) else ("", "", 0)
            given = following[1] if following[0] == "action input" else ""
            return Parsed(text[:start], (_action(content, given, tools),))
        if label == "observation":
            return Parsed(text[:start])
    return Parsed(text)


def _action(content: str, given: str, tools: Mapping[str, ToolDefinition]) -> Call:
    inline = _function_calls(content, tools)
    if inline and not given:
        return inline[0]
    name = re.split(r"[\s(`]", content.strip("`*[] "), maxsplit=1)[0]
    given = _unfenced(given)
    if given and not given.startswith("{"):
        return Call(name, _single(given, tools.get(name)))
    return Call(name, _closed(given) if given else "{}")


def _single(given: str, tool: ToolDefinition | None) -> str:
    """Take a bare value as the tool's argument if exactly one is required."""
    required = tool.parameters.get("required", []) if tool else []
    if len(required) != 1:
        return given
    return json.dumps({required[0]: given.strip("\"'")}, ensure_ascii=False)


# -- JSON -------------------------------------------------------------------------------------

_FENCE = re.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_NAMES = ("tool", "name", "function", "tool_name", "action")
_ARGUMENTS = ("arguments", "args", "parameters", "input", "action_input", "tool_input")


def _json(text: str, tools: Mapping[str, ToolDefinition]) -> Parsed:
    calls: list[Call] = []
    first = len(text)
    places = [(found.start(), found[1]) for found in _FENCE.finditer(text)]
    if not places:
        places = [(found.start(), text[found.start() :]) for found in re.finditer(r"[{\[]", text)]
    for start, content in places:
        found = _calls_of(content)
        if found:
            calls += found
            first = min(first, start)
            if "```" not in text:
                break
    return Parsed(text[:first], tuple(calls)) if calls else Parsed(text)


def _calls_of(content: str) -> list[Call]:
    """The calls in a piece of JSON, or none if it is something else."""
    content = content.strip()
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(content)
    except ValueError:
        try:
            value = json.loads(_closed(content), strict=False)
        except ValueError:
            return _broken(content)
    found = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            return []
        name = next((item[key] for key in _NAMES if isinstance(item.get(key), str)), None)
        given = next((item[key] for key in _ARGUMENTS if key in item), None)
        if name is None or (given is None and len(item) > 1):
            return []
        given = {} if given is None else given
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        found.append(Call(name, text))
    return found


def _broken(content: str) -> list[Call]:
    """A call whose arguments are unreadable, kept so that the model is told about it."""
    named = re.match(r'\{\s*"(?:tool|name)"\s*:\s*"([\w-]+)"\s*,\s*"\w+"\s*:\s*(.*)', content, re.S)
    return [Call(named[1], named[2])] if named else []


# -- XML --------------------------------------------------------------------------------------

_ELEMENT = re.compile(
    r"<(?P<tag>tool|tool_call|function|invoke)"
    r"(?:\s+name\s*=\s*[\"']?(?P<name>[\w-]+)[\"']?|=(?P<equal>[\w-]+))?\s*>"
    r"(?P<body>.*?)(?:</(?P=tag)>|\Z)",
    re.DOTALL,
)
_CHILD = re.compile(
    r"<(?:(?P<tag>parameter|arg)(?:\s+name\s*=\s*[\"']?(?P<name>[\w-]+)[\"']?|=(?P<equal>[\w-]+))"
    r"|(?P<own>\w+))\s*>(?P<value>.*?)(?:</(?:(?P=tag)|(?P=own))\s*>)",
    re.DOTALL,
)


def _xml(text: str, tools: Mapping[str, ToolDefinition]) -> Parsed:
    calls: list[Call] = []
    first = len(text)
    for element in _ELEMENT.finditer(text):
        name, body = element["name"] or element["equal"], element["body"]
        if name is None:  # <tool_call>{...}</tool_call>, or with an element of another form inside
            calls += _calls_of(body) or list(_xml(body, tools).calls)
        else:
            calls.append(Call(name, _children(body, tools.get(name))))
        if calls:
            first = min(first, element.start())
    return Parsed(text[:first], tuple(calls)) if calls else Parsed(text)


def _children(body: str, tool: ToolDefinition | None) -> str:
    if body.strip().startswith("{"):
        return _closed(body.strip())
    parameters = tool.parameters if tool else {}
    properties = parameters.get("properties", {})
    given: dict[str, Any] = {}
    for child in _CHILD.finditer(body):
        key = child["name"] or child["equal"] or child["own"]
        given[key] = value_of(_trimmed(child["value"]), properties.get(key, {}), parameters)
    left = _CHILD.sub("", body)
    if re.search(r"<\w", left):  # an argument without end tag: leave the JSON broken
        return json.dumps(given, ensure_ascii=False)[:-1]
    return json.dumps(given, ensure_ascii=False)


def _trimmed(value: str) -> str:
    """Drop the line breaks that only separate the value from its tags."""
    return value[1:].removesuffix("\n") if value.startswith("\n") else value


# -- function form ----------------------------------------------------------------------------


def _function(text: str, tools: Mapping[str, ToolDefinition]) -> Parsed:
    fences = [(found.start(), found[1]) for found in _FENCE.finditer(text)]
    calls: list[Call] = []
    first = len(text)
    for start, content in fences or [(0, text)]:
        found = _function_calls(content, tools)
        if found:
            if not fences:
                names = "|".join(map(re.escape, tools))
                begin = re.search(rf"^[ \t]*(?:{names})\s*\(", text, re.MULTILINE)
                start = begin.start() if begin else 0
            calls += found
            first = min(first, start)
    return Parsed(text[:first], tuple(calls)) if calls else Parsed(text)


def _function_calls(content: str, tools: Mapping[str, ToolDefinition]) -> list[Call]:
    """Calls of known tools that start a line."""
    if not tools:
        return []
    names = "|".join(map(re.escape, tools))
    calls, at = [], 0
    begins = re.compile(rf"^[ \t]*({names})\s*\(", re.MULTILINE)
    while (begin := begins.search(content, at)) is not None:
        after = begins.search(content, begin.end())
        end = after.start() if after else len(content)
        node, length = _expression(content[begin.start() : end].lstrip(" \t"))
        calls.append(Call(begin[1], _keywords(node, tools[begin[1]], content[begin.end() : end])))
        at = begin.start() + max(length, begin.end() - begin.start())
    return calls


def _expression(text: str) -> tuple[ast.Call | None, int]:
    """The call at the start of a text, and its length; a missing bracket is added."""
    ends = [found.end() for found in re.finditer(r"\)", text)]
    for candidate in [*(text[:end] for end in ends), text.rstrip() + ")"]:
        try:
            node = ast.parse(candidate, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(node, ast.Call):
            return node, len(candidate)
    return None, 0


def _keywords(node: ast.Call | None, tool: ToolDefinition, raw: str) -> str:
    if node is None:
        return raw.strip()  # not JSON, so the model is told
    properties = list(tool.parameters.get("properties", {}))
    given: dict[str, Any] = {}
    try:
        for name, value in zip(properties, node.args, strict=False):
            given[name] = ast.literal_eval(value)
        for keyword in node.keywords:
            given[keyword.arg or "**"] = ast.literal_eval(keyword.value)
        return json.dumps(given, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return raw.strip()


# -- missing ends -----------------------------------------------------------------------------


def _closed(text: str) -> str:
    """JSON text with open brackets closed; unchanged if a string is open, too."""
    text = text.strip()
    open_: list[str] = []
    in_string = escaped = False
    for place, letter in enumerate(text):
        if in_string:
            in_string = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            in_string, escaped = True, False
        elif letter in "{[":
            open_.append("}" if letter == "{" else "]")
        elif letter in "}]":
            if not open_ or open_.pop() != letter:
                return text
            if not open_:
                return text[: place + 1]
    if in_string or not open_:
        return text
    return text.rstrip().rstrip(",") + "".join(reversed(open_))


def _unfenced(text: str) -> str:
    found = _FENCE.match(text.strip())
    return found[1].strip() if found else text.strip()


def _object(arguments: str) -> Mapping[str, Any]:
    try:
        value = json.loads(arguments, strict=False)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
