"""Converts events to and from plain JSON values, for journals and streams."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from agentcli.agent.events import Event, Replaced
from agentcli.errors import Place
from agentcli.messages import (
    Message,
    ToolCall,
    ToolResult,
    Usage,
    from_json,
    result_from_json,
    result_to_json,
    to_json,
)


def _kind(cls: type[Event]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


# ``slots=True`` makes a second class of the same name: the last one is the one in use.
_KINDS: dict[str, type[Event]] = {_kind(cls): cls for cls in Event.__subclasses__()}
_HINTS: dict[type[Event], dict[str, Any]] = {cls: get_type_hints(cls) for cls in _KINDS.values()}
_NAMES = {cls: tuple(each.name for each in fields(cls)) for cls in _KINDS.values()}
_KIND_OF = {cls: name for name, cls in _KINDS.items()}
_MOST = 1e300
_PLAIN = frozenset({type(None), str, int, float, bool})


def kind(event: Event) -> str:
    """The event's name in journals and streams, such as ``tool_started``."""
    return _KIND_OF[type(event)]


def to_record(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, with its ``kind``."""
    record: dict[str, Any] = {"kind": kind(event)}
    for name in _NAMES[type(event)]:
        record[name] = _encode(getattr(event, name))
    return record


def from_record(record: Mapping[str, Any]) -> Event:
    """Inverse of ``to_record`` for durable events.

    Raises:
        ValueError: an unknown kind, a missing field or a value of the wrong type.
    """
    said = record.get("kind")
    if isinstance(said, str) and said not in _KINDS:
        raise ValueError(f"{said} is an event that this version does not know; update agentcli")
    try:
        cls = _KINDS[record["kind"]]
        hints = _HINTS[cls]
        values = {
            name: _decode(hints[name], record[name]) for name in _NAMES[cls] if name in record
        }
        event = cls(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {error!r}") from error
    for name in _NAMES[cls]:
        if not _fits(getattr(event, name), hints[name]):
            raise ValueError(f"not an event: {name} of {record['kind']} has a wrong type")
    return event


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value matches its annotation, checked recursively."""
    if hint is Any:
        return True
    if hint is str or hint is bool:
        return type(value) is hint
    if hint is int:
        return type(value) is int
    if hint is float:  # JSON has numbers that no float holds, and Python reads 1e400 as infinity
        return type(value) in (int, float) and -_MOST < value < _MOST
    origin, options = _shape(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is not None:
        return isinstance(value, Mapping) and all(
            type(key) is str and _fits(item, options[1]) for key, item in value.items()
        )
    if not isinstance(value, hint):
        return False
    cls: type = type(value)
    return all(_fits(getattr(value, name), inner) for name, inner in _inner(cls))


@cache
def _shape(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


@cache
def _inner(cls: type) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass with their types; empty for any other class."""
    if not is_dataclass(cls):
        return ()
    hints = get_type_hints(cls)
    return tuple((each.name, hints[each.name]) for each in fields(cls))


def _encode(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    match value:
        case Message():
            return to_json(value)
        case ToolResult():
            return result_to_json(value)
        case ToolCall():
            return {"id": value.id, "name": value.name, "arguments": value.arguments}
        case Usage() | Place() | Replaced():
            return {each.name: _encode(getattr(value, each.name)) for each in fields(value)}
        case bytes():
            return value.decode("utf-8", errors="replace")
        case StrEnum():
            return value.value
        case tuple():
            return [_encode(item) for item in value]
        case Mapping():
            return dict(value)
        case None | str() | int() | float():
            return value
        case _:  # a stream event inside a Delta
            return {
                "kind": type(value).__name__,
                **{each.name: _encode(getattr(value, each.name)) for each in fields(value)},
            }


def _decode(hint: Any, value: Any) -> Any:
    if hint is Message:
        return from_json(value)
    if hint is ToolResult:
        return result_from_json(value)
    if hint is ToolCall or hint is Usage:
        return hint(**value)
    if hint is Replaced:
        message = value["message"]
        shown = None if message is None else from_json(message)
        return Replaced(value["first"], value["end"], shown)
    if hint == Place | None:
        return None if value is None else Place(**value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if isinstance(value, list):
        (item, *_) = get_args(hint) or (Any,)
        return tuple(_decode(item, each) for each in value)
    return value
