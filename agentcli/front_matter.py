"""Reads and validates the YAML front matter of a task file.

It is a separate module because YAML and the models of the fields take 20 ms to import, and a task
given by ``-p`` needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agentcli.config import nearest
from agentcli.errors import TaskError
from agentcli.settings import complaint


def _list(value: object) -> object:
    """Accept a single value as a list of one."""
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
    cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    time_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
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


def read_fields(text: str, source: str) -> dict[str, Any]:
    """Parse and validate the given fields. Line numbers in errors count from the top of the file.

    Raises:
        TaskError: it is not YAML, or a field is unknown or wrong.
    """
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
        # PyYAML does not catch what int() and date() raise for invalid numbers and dates.
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
        fields["budget"] = front.budget.model_dump()
    fields["resources"] = tuple(item.model_dump() for item in front.resources)
    return {name: value for name, value in fields.items() if value is not None}


def _refuse_duplicates(top: yaml.Node, source: str) -> None:
    """Reject duplicate keys: YAML would silently take the last one."""
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
    return TaskError(f"{source}:{line}: {place} {complaint(first)}", hint="Correct this line")
