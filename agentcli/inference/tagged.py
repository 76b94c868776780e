"""Calls written as tags, with text arguments unescaped (Qwen3-Coder):

    <function=NAME>
    <parameter=ARGUMENT>
    VALUE
    </parameter>
    </function>

The tool's schema tells which arguments are text; all others are JSON. ``TagReader`` converts a call
to its name and JSON arguments; ``TagCursor`` tracks the position in one for a constraint.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agentcli.inference.call_syntax import Path, Piece

CLOSE = "</parameter>"
VALUE_END = f"\n{CLOSE}"
FUNCTION_END = "</function>"
_TAG = re.compile(r"<(?:(?P<kind>function|parameter)=(?P<name>[^<>]*)|/function|/tool_call)>\Z")
_MAX_REFERENCES = 16  # of one schema through others

_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
          dict: "object", list: "array"}  # fmt: skip


def kinds(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """Return the JSON types that a schema admits; empty if it does not restrict them.

    ``root`` is the schema whose definitions it may refer to.
    """
    if not isinstance(schema, Mapping) or depth > _MAX_REFERENCES:
        return set()
    if isinstance(named := schema.get("type"), str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    if "const" in schema:
        return {_NAMES[type(schema["const"])]}
    if isinstance(schema.get("enum"), list):
        return {_NAMES[type(value)] for value in schema["enum"]}
    if isinstance(where := schema.get("$ref"), str) and where.startswith("#/"):
        target: Any = root
        for key in where[2:].split("/"):
            target = target.get(key, {}) if isinstance(target, Mapping) else {}
        return kinds(target, root, depth + 1)
    parts = schema.get("anyOf") or schema.get("oneOf") or []
    found = [kinds(part, root, depth + 1) for part in parts]
    return set().union(*found) if all(found) else set()


def is_text(schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether a value is written unescaped: its schema admits strings, or has no type."""
    found = kinds(schema, root)
    return not found or "string" in found


def value_of(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    """Parse ``text`` as a value of ``schema``.

    Text that is not valid JSON is returned as it is, and so is text that parses to a type other
    than the schema's if that admits strings. The validation of the arguments reports the error.
    """
    wanted = kinds(schema, root)
    if wanted <= {"string"}:
        return text
    # Chat templates write the values of earlier calls as Python literals.
    plain = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
    try:
        value = json.loads(plain)
    except ValueError:
        return text
    name = _NAMES[type(value)]
    admits = name in wanted or (name == "integer" and "number" in wanted)
    return value if admits or "string" not in wanted else text


class TagReader:
    """Reads one call after its opening mark. ``schemas`` has the parameters of each tool."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self._schemas = schemas
        self._root: Mapping[str, Any] = {}  # the schema of the called tool
        self._held = ""  # the unread part of a tag or value
        self._key: str | None = None  # the argument whose value is open
        self._streams = False  # the open value is text, sent piece by piece
        self._fresh = False  # nothing of the open value was read
        self._given = 0  # arguments so far
        self.named = self.done = False

    @property
    def held(self) -> str:
        """The text that no piece contains yet."""
        return self._held

    def feed(self, char: str) -> Iterator[Piece]:
        """Yield the pieces that this character completes."""
        self._held += char
        if self._key is not None:
            yield from self._value()
        elif char == ">" and (found := _TAG.search(self._held)):
            self._held = ""
            yield from self._tag(found["kind"], found["name"])

    def _tag(self, kind: str | None, name: str) -> Iterator[Piece]:
        if kind == "function" and not self.named:
            self.named = True
            self._root = self._schemas.get(name, {})
            yield Piece("name", name)
            yield Piece("arguments", "{")
        elif kind == "parameter" and self.named:
            self._key, self._fresh = name, True
            self._streams = kinds(self._schema(), self._root) <= {"string"}
            head = ("" if self._given == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": "
            self._given += 1
            yield Piece("arguments", head + '"' if self._streams else head)
        elif kind is None:
            self.done = True
            if not self.named:
                yield Piece("name", "invalid_call")
            yield Piece("arguments", "}" if self.named else "{}")
            yield Piece("end")

    def _schema(self) -> Any:
        properties = self._root.get("properties", {})
        return properties.get(self._key, {}) if isinstance(properties, Mapping) else {}

    def _value(self) -> Iterator[Piece]:
        if self._fresh:  # the newline after the tag is not part of the value
            self._fresh = False
            self._held = self._held.removeprefix("\n")
        ended = self._held.endswith(CLOSE)
        if ended:
            text, self._held = self._held.removesuffix(CLOSE).removesuffix("\n"), ""
        elif self._streams:
            keep = len(CLOSE) + 1
            text, self._held = self._held[:-keep], self._held[-keep:]
        else:
            return
        if self._streams:
            written = json.dumps(text, ensure_ascii=False)[1:-1] + '"' * ended
        else:
            written = json.dumps(value_of(text, self._schema(), self._root), ensure_ascii=False)
        if ended:
            self._key = None
        if written:
            yield Piece("arguments", written)


@dataclass
class TagCursor:
    """The position within a tagged call, fed byte by byte.

    The call must be valid, which a grammar ensures. ``strings`` has the tool's name under the empty
    path, and each value, unparsed, under its argument's path.
    """

    expects: str = "tag"  # tag or value
    string: bytearray | None = None  # the open value so far
    strings: dict[Path, str] = field(default_factory=dict)
    done: bool = False
    string_start: ClassVar[bytes] = b"\n"
    string_end: ClassVar[bytes] = VALUE_END.encode()
    _tag: bytearray = field(default_factory=bytearray)
    _key: str = ""

    def path(self) -> Path:
        return (self._key,)

    def copy(self) -> TagCursor:
        other = copy.copy(self)
        other.strings, other._tag = dict(self.strings), bytearray(self._tag)
        other.string = None if self.string is None else bytearray(self.string)
        return other

    def feed(self, byte: int) -> None:
        if self.string is not None:
            self.string.append(byte)
            if self.string.endswith(self.string_end):
                value = self.string.removesuffix(self.string_end)
                self.strings[self.path()] = value.decode("utf-8", "replace")
                self.string, self.expects = None, "tag"
            return
        self._tag.append(byte)
        if self.expects == "value" and byte == ord("\n"):  # the newline after the tag
            self.string = bytearray()
            self._tag.clear()
        elif byte == ord(">"):
            found = _TAG.search(self._tag.decode("utf-8", "replace"))
            self._tag.clear()
            if found is None:
                return
            if found["kind"] == "function":
                self.strings[()] = found["name"]
            elif found["kind"] == "parameter":
                self._key, self.expects = found["name"], "value"
            else:
                self.done = True
