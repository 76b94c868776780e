"""Makes the schemas of foreign tools acceptable to all providers.

A provider refuses the whole request if one tool's schema has alternatives at its top, or an
argument whose name has characters such as ``$``. The server checks arguments by its own schema
anyway, so what the model is shown may be simpler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_REFUSED = (*_ALTERNATIVES, "not", "enum", "const")
_REFERENCE = re.compile(r"#/(\$defs|definitions)/([^/]+)")


def acceptable(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A tool's schema without what providers refuse, and its arguments' own names if changed.

    The properties of all alternatives become optional arguments of one object. A schema that is
    none remains so.
    """
    flat = {key: value for key, value in schema.items() if key not in _REFUSED}
    properties = {**_united(schema), **_mapping(schema.get("properties"))}
    given = {name: re.sub("[^A-Za-z0-9_.-]", "_", name)[:64] for name in properties}
    if len(set(given.values())) < len(given):  # two would get the same name
        given = {}
    if properties:
        flat["properties"] = {
            given.get(name, name): {} if value is True else value  # the same, but not to providers
            for name, value in properties.items()
        }
    if isinstance(required := schema.get("required"), list):
        flat["required"] = [given.get(str(name), name) for name in required]
    return flat, {new: name for name, new in given.items() if new != name}


def _united(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of all alternatives at the top of a schema."""
    found: dict[str, list[Any]] = {}
    for part in _alternatives(schema):
        for name, value in _mapping(part.get("properties")).items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return {
        name: values[0] if len(values) == 1 else {"anyOf": values} for name, values in found.items()
    }


def _alternatives(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in _ALTERNATIVES:
        parts = schema.get(key)
        for part in map(_mapping, parts if isinstance(parts, list) else ()):
            if reference := _REFERENCE.fullmatch(str(part.get("$ref"))):
                yield _mapping(_mapping(schema.get(reference[1])).get(reference[2]))
            else:
                yield part


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
