"""The task file: Markdown, the instruction, below optional YAML front matter.

---
model: openai:gpt-6.2-sol
max_steps: 40
budget: {tokens: 200000, cost: 1.5, time_s: 900}
tools: [read_file, search_replace, run_tests]
checks:
  - python -m pytest -q
env: host
resources:
  - docs/spec.md
  - {path: data, kind: folder, writable: true}
  - {path: shot.png, kind: image}
---
Make the parser accept empty input.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agentcli.config import nearest
from agentcli.errors import TaskError
from agentcli.text import clip

MAX_BYTES = 4 * 1024 * 1024

# A shell's <(...) is a pipe with a writer; any other pipe may never get one.
_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens in and out, US dollars, seconds and tool calls that may be used; None: unlimited."""

    tokens: int | None = None
    cost: float | None = None
    time_s: float | None = None
    tool_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """Something the task needs; ``path`` is relative to the workspace.

    ``kind`` is file, folder, or image: a file that is shown to the model.
    """

    path: str
    kind: str = "file"
    mount: str = ""
    required: bool = True
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done. None and empty values leave the choice to the settings.

    ``checks`` are shell commands that must succeed for the task to count as solved; ``source`` is
    where the task was read, as shown in messages; ``id`` is what a set of tasks calls it.
    """

    instruction: str
    source: str = ""
    id: str = ""
    model: str | None = None
    max_steps: int | None = None
    budget: Budget = field(default_factory=Budget)
    tools: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    env: str | None = None
    resources: tuple[Resource, ...] = ()


def read(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskError: it is missing, no file, empty, not UTF-8, or its front matter is wrong.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise TaskError(f"{path}: is a folder", hint="Name a Markdown file inside it")
        if not stat.S_ISREG(kind) and not str(path).startswith(_STREAMS):
            raise TaskError(f"{path}: not a regular file", hint="Use - to read from stdin")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise TaskError(f"{path}: no such file", hint="Check the path, or use -p TEXT") from error
    except OSError as error:
        raise TaskError(f"{clip(str(path), 200)}: {error.strerror or error}") from error
    return parse(raw, str(path))


def read_stdin() -> Task:
    """Read a task from standard input; raises as ``read``."""
    if sys.stdin is None:
        raise TaskError("standard input is closed", hint="Name a TASK.md, or use -p TEXT")
    return parse(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")


def parse(raw: bytes, source: str) -> Task:
    """Make a task of a file's bytes; raises as ``read``."""
    if len(raw) > MAX_BYTES:
        raise TaskError(f"{source}: longer than {MAX_BYTES // 2**20} MiB", hint="Shorten it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise TaskError(f"{source}:{line}: not UTF-8", hint="Save the file as UTF-8") from error
    if "\0" in text:
        raise TaskError(f"{source}: not a text in UTF-8", hint="Save the file as UTF-8")
    front, body = _split(text.replace("\r\n", "\n"), source)
    fields = _front_matter(front, source) if front is not None else {}
    if not body.strip():
        raise TaskError(f"{source}: the task is empty", hint="Write what is to be done")
    return Task(body.strip(), source, **fields)


def _split(text: str, source: str) -> tuple[str | None, str]:
    """The front matter, None without one, and the body."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return None, text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ("---", "..."):
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    raise TaskError(f"{source}:1: the front matter has no end", hint='Close it with a line "---"')


def _list(value: object) -> object:
    """A single value stands for a list of one."""
    return (value,) if isinstance(value, str | Mapping) else _tuple(value)


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _path(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _tokens(value: object) -> object:
    return {"tokens": value} if isinstance(value, int) else value


Line = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Budget(_Strict):
    tokens: Annotated[int, Field(gt=0)] | None = None
    cost: Annotated[float, Field(gt=0)] | None = None
    time_s: Annotated[float, Field(gt=0)] | None = None
    tool_calls: Annotated[int, Field(gt=0)] | None = None


class _Resource(_Strict):
    path: Line
    kind: Annotated[str, Field(pattern="^(file|folder|image)$")] = "file"
    mount: str = ""
    required: bool = True
    writable: bool = False


class _Front(_Strict):
    model: Line | None = None
    max_steps: Annotated[int, Field(gt=0)] | None = None
    budget: Annotated[_Budget, BeforeValidator(_tokens)] | None = None
    tools: Annotated[tuple[Line, ...], BeforeValidator(_list)] = ()
    checks: Annotated[tuple[Line, ...], BeforeValidator(_list)] = ()
    env: Annotated[str, Field(pattern=r"^(host|docker:\S+|ssh:\S+)$")] | None = None
    resources: Annotated[
        tuple[Annotated[_Resource, BeforeValidator(_path)], ...], BeforeValidator(_list)
    ] = ()
    id: str = ""


def _front_matter(text: str, source: str) -> dict[str, Any]:
    """The fields of a Task; line numbers count from the top of the file."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark is not None else 1
        what = getattr(error, "problem", None) or "not YAML"
        raise TaskError(
            f"{source}:{line}: {what}", hint="Correct the YAML between the --- lines"
        ) from error
    except RecursionError as error:
        raise TaskError(f"{source}:2: the front matter is nested too deep") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # PyYAML passes on what int() and date() say of a number or a date that is none.
        raise TaskError(f"{source}:2: a value of the front matter is wrong: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise TaskError(f"{source}:2: the front matter is not a list of keys and values")
    _refuse_duplicates(node, source)
    lines = {key.value: key.start_mark.line + 2 for key, _ in node.value}
    for key in values:
        if key not in _Front.model_fields:
            raise TaskError(
                f'{source}:{lines.get(str(key), 2)}: unknown key "{key}"',
                hint=nearest(str(key), list(_Front.model_fields)),
            )
    try:
        front = _Front.model_validate(values)
    except ValidationError as error:
        raise _fault(error, lines, source) from error
    fields = {name: getattr(front, name) for name in front.model_fields_set}
    if front.budget is not None:
        fields["budget"] = Budget(**front.budget.model_dump())
    fields["resources"] = tuple(Resource(**item.model_dump()) for item in front.resources)
    return {name: value for name, value in fields.items() if value is not None}


def _refuse_duplicates(top: yaml.Node, source: str) -> None:
    """YAML itself would take the last one, and say nothing."""
    nodes, seen = [top], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                nodes.append(value)
                if isinstance(key, yaml.ScalarNode) and key.value in keys:
                    raise TaskError(
                        f'{source}:{key.start_mark.line + 2}: "{key.value}" is given twice',
                        hint="Keep one of them",
                    )
                keys.add(str(key.value))


def _fault(error: ValidationError, lines: Mapping[str, int], source: str) -> TaskError:
    first = error.errors(include_url=False, include_context=False)[0]
    steps = [str(step) for step in first["loc"]]
    place, line = ".".join(steps), lines.get(steps[0], 2)
    if first["type"] == "extra_forbidden":
        known = _Budget if steps[0] == "budget" else _Resource
        return TaskError(
            f'{source}:{line}: unknown key "{place}"',
            hint=nearest(steps[-1], list(known.model_fields)),
        )
    what = first["msg"].removeprefix("Input should be ")
    return TaskError(f"{source}:{line}: {place} should be {what}", hint="Correct it there")
