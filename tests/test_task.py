"""Task files, valid and invalid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentcli.errors import TaskError
from agentcli.task import Budget, Resource, Task, parse, read


def front(text: str) -> Task:
    return parse(f"---\n{text}\n---\nDo it.\n".encode(), "task.md")


def test_plain_markdown() -> None:
    assert parse(b"\n# Title\n\nDo it.\n", "t.md") == Task("# Title\n\nDo it.", "t.md")


def test_all_of_the_front_matter() -> None:
    task = front(
        "model: openai:gpt-5\nmax_steps: 40\nbudget: {tokens: 1000, cost: 1.5, time_s: 60}\n"
        "tools: [read_file, shell]\nchecks:\n  - make test\n  - make lint\n"
        "env: docker:python:3.12\n"
        "resources:\n  - a.md\n  - {path: data, kind: folder, writable: true}\n"
    )
    assert task == Task(
        "Do it.",
        "task.md",
        model="openai:gpt-5",
        max_steps=40,
        budget=Budget(tokens=1000, cost=1.5, time_s=60),
        tools=("read_file", "shell"),
        checks=("make test", "make lint"),
        env="docker:python:3.12",
        resources=(Resource("a.md"), Resource("data", "folder", writable=True)),
    )


def test_one_value_stands_for_a_list() -> None:
    task = front("checks: make test\nresources: a.md\nbudget: 5000")
    assert task.checks == ("make test",)
    assert task.resources == (Resource("a.md"),)
    assert task.budget == Budget(tokens=5000)


@pytest.mark.parametrize("text", ["---\n---\nDo it.", "---\n# no keys\n---\nDo it.", "Do it."])
def test_front_matter_may_be_empty(text: str) -> None:
    assert parse(text.encode(), "t").instruction == "Do it."


def test_windows_line_ends_and_a_byte_order_mark() -> None:
    task = parse(b"\xef\xbb\xbf---\r\nmax_steps: 3\r\n---\r\nDo\r\nit.\r\n", "t")
    assert (task.max_steps, task.instruction) == (3, "Do\nit.")


def test_a_rule_inside_the_text_is_no_front_matter() -> None:
    assert parse(b"Do it.\n---\nmodel: x\n---\n", "t").model is None


WRONG = {
    "max_stepz: 3": (2, "max_stepz", 'Did you mean "max_steps"?'),
    "\n\nmodl: x": (4, "modl", 'Did you mean "model"?'),
    "max_steps: many": (2, "max_steps should be a valid integer", ""),
    "max_steps: 0": (2, "max_steps should be greater than 0", ""),
    "max_steps: true": (2, "max_steps", ""),
    "model: ''": (2, "model", ""),
    "model: x\nchecks: {a: b}": (3, "checks", ""),
    "checks: 3": (2, "checks should be a list", ""),
    "budget: x": (2, "budget should be a section of keys and values", ""),
    "resources: [{}]": (2, "resources.0.path is missing", ""),
    "checks: [1]": (2, "checks.0 should be a valid string", ""),
    "checks: ['']": (2, "checks.0", ""),
    "budget: {token: 5}": (2, "budget.token", 'Did you mean "tokens"?'),
    "resources: [{pth: a}]": (2, "resources.0", ""),
    "env: mars": (2, "env", ""),
    "model: [1": (2, "expected ',' or ']'", "YAML"),
    "model: !!python/object:os.system x": (2, "could not determine a constructor", "YAML"),
    "- a\n- b": (2, "not a list of keys", ""),
    "1: 2": (2, 'unknown key "1"', "There are: model"),
    "max_steps: 2001-99-99": (2, "month must be in 1..12", ""),
    f"max_steps: {'9' * 5000}": (2, "is wrong", ""),
    'max_steps: !!int ""': (2, "is wrong", ""),
    f"checks: {'[' * 3000}{']' * 3000}": (2, "nested too deep", ""),
    "model: a\nmax_steps: 1\nmodel: b": (4, '"model" is given twice', ""),
    "budget:\n  tokens: 1\n  tokens: 2": (4, '"tokens" is given twice', ""),
    "resources:\n- {path: a, path: b}": (3, '"path" is given twice', ""),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: ascii(text[:40]))
def test_wrong_front_matter_is_named_with_its_line(text: str) -> None:
    line, what, hint = WRONG[text]
    with pytest.raises(TaskError) as caught:
        front(text)
    assert caught.value.message.startswith(f"task.md:{line}: ")
    assert what in caught.value.message and hint in caught.value.line()
    assert caught.value.exit_code == 2 and "\n" not in caught.value.line()


def test_front_matter_without_an_end() -> None:
    with pytest.raises(TaskError, match="no end"):
        parse(b"---\nmodel: x\nDo it.", "t")


@pytest.mark.parametrize("raw", [b"", b" \n\t\n", b"---\nmodel: openai:x\n---\n\n"])
def test_empty(raw: bytes) -> None:
    with pytest.raises(TaskError, match="empty"):
        parse(raw, "t")


@pytest.mark.parametrize("raw", [b"ok\ncaf\xe9\n", "Do it".encode("utf-16"), b"a\0b"])
def test_not_utf8(raw: bytes) -> None:
    with pytest.raises(TaskError, match="UTF-8"):
        parse(raw, "t")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a task.md").write_text("Dö it.", "utf-8")
    assert read(tmp_path / "a task.md").instruction == "Dö it."
    with pytest.raises(TaskError, match=r"none\.md: no such file"):
        read(tmp_path / "none.md")
    with pytest.raises(TaskError, match=r"fix .*: File name too long") as raised:
        read(tmp_path / ("fix the tests " * 100))
    assert "-p TEXT" in (raised.value.hint or "")
    with pytest.raises(TaskError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(TaskError, match="longer than"):
        parse(b"x" * (4 * 1024 * 1024 + 1), "t")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "task.md")
    for path in (tmp_path / "task.md", Path("/dev/zero")):
        with pytest.raises(TaskError, match="not a regular file"):
            read(path)
    with pytest.raises(TaskError, match="File name too long") as caught:
        read(tmp_path / ("x" * 5000))
    assert len(caught.value.line()) < 300


def test_a_pipe_of_the_shell_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"Do it.")
    os.close(writer)
    assert read(Path(f"/dev/fd/{reader}")).instruction == "Do it."
    os.close(reader)
