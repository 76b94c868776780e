"""Makes JSON Schema from Python functions, and validates a model's JSON arguments.

The signature gives names, types and defaults; the docstring's ``Args:`` section gives descriptions.
``Annotated[int, {"minimum": 1}]`` adds JSON Schema keywords to a type, and
``Annotated[int, "seconds"]`` a description.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema_rs

from agentcli.errors import ConfigError, ToolInputError
from agentcli.text import clip, one_line

_SIMPLE: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}

_SPOKEN = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON Schema of a tool function's arguments, without the context parameter.

    Raises:
        ConfigError: a parameter is variadic, or its type is missing or cannot be expressed in JSON.
    """
    hints = get_type_hints(function, include_extras=True)
    described = argument_descriptions(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters[1:] if takes_context(function) else parameters:
        place = f"{function.__qualname__}({parameter.name})"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{place}: a tool's arguments must be named one by one")
        if parameter.name not in hints:
            raise ConfigError(f"{place}: the parameter needs a type")
        schema = type_schema(hints[parameter.name], place)
        if parameter.name in described:
            schema = {**schema, "description": described[parameter.name]}
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is not None:
            default = parameter.default
            schema = {**schema, "default": getattr(default, "value", default)}
        properties[parameter.name] = schema
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter is the call's context, not an argument from the model."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None:
        return False
    annotation = first.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    name = name.rpartition(".")[2]
    return name == "ToolContext" or (first.name == "context" and name in ("object", "Any"))


def type_schema(hint: Any, place: str = "") -> dict[str, Any]:
    """The JSON Schema of a Python type; ``place`` names it in errors.

    Raises:
        ConfigError: the type cannot be expressed in JSON.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is Annotated:
        schema = type_schema(args[0], place)
        for extra in args[1:]:
            schema |= {"description": extra} if isinstance(extra, str) else dict(extra)
        return schema
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if origin is Literal:
        return {"enum": list(args)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if origin in (Union, types.UnionType):
        return _union([type_schema(arg, place) for arg in args])
    if origin in (list, tuple, set, Sequence, Iterable) or hint in (list, tuple):
        items = type_schema(args[0], place) if args else {}
        return {"type": "array", "items": items} if items else {"type": "array"}
    if origin in (dict, Mapping) or hint is dict:
        values = type_schema(args[1], place) if args else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    raise ConfigError(f"{place}: JSON cannot express the type {hint!r}")


def _union(choices: list[dict[str, Any]]) -> dict[str, Any]:
    if all(list(choice) == ["type"] for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    return {"anyOf": choices}


def argument_descriptions(docstring: str) -> dict[str, str]:
    """The descriptions of arguments in a docstring's ``Args:`` section (Google style)."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if not section:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n" + section[1]).splitlines():
        start = re.match(r"(\w+)(?: \([^)]*\))?:\s*(.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def parse_arguments(text: str) -> dict[str, Any]:
    """Parse the arguments that a model wrote as JSON; an empty text means no arguments.

    Unescaped line breaks inside strings are accepted, as their meaning is clear.

    Raises:
        ToolInputError: it is not a single JSON object, or a name is given twice.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text, strict=False, object_pairs_hook=_once, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        raise ToolInputError(
            f"arguments: not valid JSON: {error.msg} at character {error.pos + 1} "
            f"of {len(text)}, near {json.dumps(near, ensure_ascii=False)}"
        ) from error
    except UnicodeEncodeError as error:
        raise ToolInputError("arguments: a string holds half of a surrogate pair") from error
    except RecursionError as error:
        raise ToolInputError("arguments: nested too deeply") from error
    except ValueError as error:  # a number with thousands of digits
        raise ToolInputError(f"arguments: {one_line(str(error))}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ToolInputError(f"arguments: must be an object, got {_shown(value)}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ToolInputError(f'arguments: "{twice}" is given twice', path=twice)
    return value


def _no_constant(name: str) -> None:
    raise ToolInputError(f"arguments: {name} is not a JSON number")


class Validator:
    """Checks arguments against a schema and describes errors in sentences."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises ``ConfigError`` if this is not the JSON Schema of an object."""
        if schema.get("type") != "object":
            raise ConfigError("a tool's parameters must be an object")
        try:
            self._validator = jsonschema_rs.validator_for(dict(schema), retriever=_no_retrieval)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            reason = getattr(error, "message", str(error))
            raise ConfigError(f"not a JSON Schema: {one_line(reason, 200)}") from error
        self._properties: Mapping[str, Any] = schema.get("properties", {})
        self._required = frozenset(schema.get("required", ()))

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Validate arguments and return them with harmless type errors corrected.

        These are integers, numbers and booleans written as strings, whole numbers written as
        floats, and null for optional arguments.

        Raises:
            ToolInputError: what is wrong and where, for up to three errors.
        """
        mended = {
            name: self._mend(name, value)
            for name, value in arguments.items()
            if not (value is None and self._means_absent(name))
        }
        faults = []
        for error in self._validator.iter_errors(mended):
            faults.append(error)
            if len(faults) == 3:
                break
        if not faults:
            return mended
        sentences = "; ".join(self._sentence(fault) for fault in faults)
        raise ToolInputError(f"arguments: {sentences}", path=_path(faults[0].instance_path))

    def _means_absent(self, name: str) -> bool:
        wanted = self._properties.get(name, {}).get("type", "null")
        return name not in self._required and wanted != "null" and "null" not in wanted

    def _mend(self, name: str, value: Any) -> Any:
        wanted = self._properties.get(name, {}).get("type")
        if wanted == "integer" and isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, str):
            return value
        if wanted == "integer" and re.fullmatch(r"-?[0-9]{1,15}", value):
            return int(value)
        if wanted == "number" and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value):
            return float(value)
        if wanted == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return value

    def _sentence(self, fault: jsonschema_rs.ValidationError) -> str:
        path = _path(fault.instance_path)
        detail = fault.kind.as_dict()
        got = f"got {_shown(fault.instance)}"
        match fault.kind.name:
            case "type":
                kinds = sorted(detail["types"], key=lambda kind: bool(kind == "null"))
                types_ = " or ".join(_SPOKEN.get(kind, kind) for kind in kinds)
                return f'"{path}" must be {types_}, {got}'
            case "required":
                return f'"{_path([*fault.instance_path, detail["property"]])}" is missing'
            case "additionalProperties":
                names = ", ".join(f'"{name}"' for name in detail["unexpected"])
                return f"{names} is not known{self._known(path)}"
            case "enum":
                options = ", ".join(_shown(option) for option in detail["options"])
                return f'"{path}" must be one of {options}, {got}'
            case "minimum":
                return f'"{path}" must be at least {detail["limit"]}, {got}'
            case "maximum":
                return f'"{path}" must be at most {detail["limit"]}, {got}'
            case _:
                return f'"{path}": {one_line(fault.message, 200)}'

    def _known(self, path: str) -> str:
        if path or not self._properties:
            return ""
        return "; known are " + ", ".join(f'"{name}"' for name in self._properties)


def _no_retrieval(uri: str) -> Any:
    raise ValueError(f"{uri} is outside the schema, and is not fetched")


def _path(steps: Iterable[str | int]) -> str:
    """Format a path as ``edits[1].old``, like Python and JavaScript."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def _shown(value: Any) -> str:
    return clip(json.dumps(value, ensure_ascii=False), 60)
