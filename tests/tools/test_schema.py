"""Making a schema from a function, and validating a model's JSON arguments."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcli.errors import ConfigError, ToolInputError
from agentcli.tools.schema import (
    Validator,
    argument_descriptions,
    parse_arguments,
    schema_of,
    type_schema,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


async def sample(
    context: object,
    path: str,
    lines: list[int],
    depth: Annotated[int, {"minimum": 1}, "how deep"] = 3,
    ratio: float = 0.5,
    colour: Colour = Colour.RED,
    glob: str | None = None,
    *,
    strict: bool = False,
) -> str:
    """Do something.

    Args:
        path: The file,
            relative to the workspace.
        lines (list): Which lines.

    Raises:
        ValueError: never.
    """
    return ""


def test_the_schema_of_a_function() -> None:
    assert schema_of(sample) == {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, relative to the workspace."},
            "lines": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "Which lines.",
            },
            "depth": {"type": "integer", "minimum": 1, "description": "how deep", "default": 3},
            "ratio": {"type": "number", "default": 0.5},
            "colour": {"enum": ["red", "blue"], "default": "red"},
            "glob": {"type": ["string", "null"]},
            "strict": {"type": "boolean", "default": False},
        },
        "required": ["path", "lines"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (Any, {}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict, {"type": "object"}),
        (list, {"type": "array"}),
        (tuple[str, ...], {"type": "array", "items": {"type": "string"}}),
        (
            list[str] | None,
            {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        ),
    ],
)
def test_types(hint: Any, schema: dict[str, Any]) -> None:
    assert type_schema(hint) == schema


async def variadic(context: object, *paths: str) -> str:
    return ""


async def untyped(context: object, path) -> str:  # type: ignore[no-untyped-def]
    return ""


async def strange(context: object, path: complex) -> str:
    return ""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (variadic, r"variadic\(paths\): a tool's arguments must be named one by one"),
        (untyped, r"untyped\(path\): the parameter needs a type"),
        (strange, r"strange\(path\): JSON cannot express the type <class 'complex'>"),
    ],
)
def test_what_cannot_be_a_tool(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schema_of(function)


def test_a_docstring_without_arguments() -> None:
    assert argument_descriptions("Do.\n\nReturns:\n    x: no") == {}
    assert argument_descriptions("") == {}


# Arguments

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number"},
        "all": {"type": "boolean"},
        "mode": {"enum": ["r", "w"]},
        "glob": {"type": ["string", "null"]},
        "edits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"old": {"type": "string"}},
                "required": ["old"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["path"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "message", "path"),
    [
        ({}, '"path" is missing', ""),
        ({"path": None}, '"path" must be a string, got null', "path"),
        ({"path": "a", "limit": "ten"}, '"limit" must be an integer, got "ten"', "limit"),
        ({"path": "a", "limit": 1.5}, '"limit" must be an integer, got 1.5', "limit"),
        ({"path": "a", "limit": True}, '"limit" must be an integer, got true', "limit"),
        ({"path": "a", "limit": 0}, '"limit" must be at least 1, got 0', "limit"),
        ({"path": "a", "limit": "12"}, '"limit" must be at most 9, got 12', "limit"),
        ({"path": "a", "all": "yes"}, '"all" must be true or false, got "yes"', "all"),
        ({"path": "a", "mode": "x"}, '"mode" must be one of "r", "w", got "x"', "mode"),
        ({"path": "a", "glob": 3}, '"glob" must be a string or null, got 3', "glob"),
        ({"path": "a", "edits": {}}, '"edits" must be a list, got {}', "edits"),
        ({"path": "a", "edits": [{"old": "x"}, {}]}, '"edits[1].old" is missing', "edits[1]"),
        ({"path": "a", "edits": [{"old": "x", "new": "y"}]}, '"new" is not known', "edits[0]"),
        (
            {"path": "a" * 200, "limit": 0, "share": []},
            '"limit" must be at least 1, got 0; "share" must be a number, got []',
            "limit",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(
    arguments: dict[str, Any], message: str, path: str
) -> None:
    with pytest.raises(ToolInputError) as caught:
        Validator(SCHEMA).check(arguments)
    assert (caught.value.message, caught.value.path) == (f"arguments: {message}", path)


def test_a_long_value_is_clipped_in_the_message() -> None:
    with pytest.raises(ToolInputError) as caught:
        Validator(SCHEMA).check({"path": ["x" * 5000]})
    assert len(caught.value.message) < 150


@pytest.mark.parametrize(
    ("given", "mended"),
    [
        ({"limit": "5"}, {"limit": 5}),
        ({"limit": 5.0}, {"limit": 5}),
        ({"share": "0.5"}, {"share": 0.5}),
        ({"all": "True"}, {"all": True}),
        ({"limit": None, "edits": None}, {}),
        ({"glob": None}, {"glob": None}),
    ],
)
def test_harmless_slips_are_mended(given: dict[str, Any], mended: dict[str, Any]) -> None:
    checked = Validator(SCHEMA).check({"path": "5", **given})
    assert checked == {"path": "5", **mended}
    assert [type(value) for value in checked.values()] == [
        type(value) for value in {"path": "5", **mended}.values()
    ]


def test_line_breaks_inside_strings_are_accepted() -> None:
    assert parse_arguments('{"old": "a\n\tb"}') == {"old": "a\n\tb"}


def test_invalid_json_says_where() -> None:
    with pytest.raises(ToolInputError) as caught:
        parse_arguments('{"path": "a.py", limit: 5}')
    assert caught.value.message == (
        "arguments: not valid JSON: Expecting property name enclosed in double quotes "
        'at character 18 of 26, near "{\\"path\\": \\"a.py\\", limit: 5}"'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), JSON))  # type: ignore[misc]
def test_any_arguments_are_checked_or_refused_with_a_sentence(arguments: dict[str, Any]) -> None:
    try:
        parsed = parse_arguments(json.dumps(arguments))
        checked = Validator(SCHEMA).check(parsed)
    except ToolInputError as error:
        assert error.message.startswith("arguments: ") and "\n" not in error.message
    else:
        assert isinstance(checked["path"], str)


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str) -> None:
    try:
        assert isinstance(parse_arguments(text), dict)
    except ToolInputError as error:
        assert error.message.startswith("arguments: ")
