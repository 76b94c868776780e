"""Calls are sent back in a form that every provider accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcli.llm.wire_calls import argument_object, argument_text, safe_name


@pytest.mark.parametrize(
    ("written", "object_"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"a": ', {"INVALID_JSON": '{"a": '}),
        ('{"a": 1} {}', {"INVALID_JSON": '{"a": 1} {}'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('{"a": NaN}', {"INVALID_JSON": '{"a": NaN}'}),
        ("[" * 100_000, {"INVALID_JSON": "[" * 100_000}),
    ],
    ids=range(10),
)
def test_arguments(written: str, object_: dict[str, Any]) -> None:
    assert argument_object(written) == object_

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(argument_text(written), parse_constant=refuse) == object_


def test_what_is_an_object_goes_back_as_it_was_written() -> None:
    assert argument_text('{ "b":1,\t"a":2 }') == '{ "b":1,\t"a":2 }'


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("read_file", "read_file"),
        ("functions.read file", "functions_read_file"),
        ("", "unnamed"),
        ("ö" * 99, "_" * 64),
    ],
)
def test_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
