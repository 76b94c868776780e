"""Answers that must match a JSON schema: the check alone, and in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentcli.answer_schema import AnswerSchema
from agentcli.errors import UsageError
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "names": {"type": "array"}},
    "required": ["count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "answer",
    ['{"count": 3}', ' {"count":3}\n', '```json\n{"count": 3}\n```', '```\n{"count":3}\n```'],
)
def test_what_fits_is_one_line_of_json(answer: str) -> None:
    assert AnswerSchema(SCHEMA).canonical(answer) == '{"count": 3}'


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("There are three.", "not JSON"),
        ('{"count": "three"}', r"\['count'\]"),
        ("{}", "count"),
        ('The answer: {"count": 3}', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_does_not_fit_says_why(answer: str, complaint: str) -> None:
    schema = AnswerSchema(SCHEMA)
    with pytest.raises(ValueError, match=complaint):
        schema.value(answer)
    assert schema.canonical(answer) == answer


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"type": "nonsense"}', '{"$ref": "https://example.com/schema"}', None]
)
def test_a_file_that_is_no_schema(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=r"schema\.json"):
        AnswerSchema.read(file)


def test_an_answer_goes_back_until_it_fits(cli: Cli, serve: Serve, workspace: Path) -> None:
    file = workspace / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    server = serve([Reply(text="Three."), Reply(text='```json\n{"count": 3}\n```')])
    cli.server = server.url
    arguments = ["run", "-p", "count", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run(*arguments, "--output-schema", str(file))
    assert (ended.code, ended.out) == (0, '{"count": 3}\n')
    first, second = (request.json["messages"] for request in server.requests)
    assert json.dumps(SCHEMA) in first[-1]["content"]
    assert "The answer does not fit the schema: it is not JSON" in second[-1]["content"]

    cli.server = serve([Reply(text="Three.")] * 3).url
    ended = cli.run(*arguments, "--output-schema", str(file), "--output", "json")
    assert (ended.code, ended.json["stop_reason"]) == (1, "critic_stop")


def test_stdin_that_is_not_read_is_told(cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve([Reply(text="Done."), Reply(text="Done.")]).url
    arguments = ["run", "-p", "explain", "--model", "openai:m", "--workspace", str(workspace)]
    assert "agentcli run - -p" in cli.run(*arguments, stdin=b"Traceback: it leaks\n").err
    assert "agentcli run - -p" not in cli.run(*arguments).err


def test_stdin_is_material_for_a_prompt(cli: Cli, serve: Serve, workspace: Path) -> None:
    server = serve([Reply(text="It leaks.")])
    cli.server = server.url
    arguments = ["run", "-", "-p", "explain", "--model", "openai:m", "--workspace", str(workspace)]
    ended = cli.run(*arguments, stdin=b"---\nTraceback: it leaks\n")
    assert ended.code == 0, ended.err
    told = server.requests[0].json["messages"][-1]["content"]
    assert told == "explain\n\n<stdin>\n---\nTraceback: it leaks\n</stdin>"
