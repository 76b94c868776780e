"""Calls that are written as tags, each text argument as it is (Qwen3-Coder):

    <function=NAME>
    <parameter=ARGUMENT>
    VALUE
    </parameter>
    </function>

Which arguments are text, the tool's schema says: others are JSON. ``TagReader`` turns a call into
its name and JSON arguments; ``TagCursor`` follows its bytes for a constraint.
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
_DEEPEST = 16  # references that are followed

_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
          dict: "object", list: "array"}  # fmt: skip


def kinds(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """The JSON types that a schema admits; empty where it does not say. ``root`` has the
    definitions that it may refer to."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
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
    """Whether a value is written as it is: text is possible, or nothing is said of it."""
    found = kinds(schema, root)
    return not found or "string" in found


def value_of(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    """The value that ``text`` stands for. What is none that the schema admits stays text: whoever
    checks the arguments says what is wrong."""
    wanted = kinds(schema, root)
    if wanted <= {"string"}:
        return text
    # Templates write the values of earlier calls as Python does.
    plain = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
    try:
        value = json.loads(plain)
    except ValueError:
        return text
    name = _NAMES[type(value)]
    admits = name in wanted or (name == "integer" and "number" in wanted)
    return value if admits or "string" not in wanted else text


class TagReader:
    """Reads one call, from behind its opening mark. ``schemas`` are the tools' parameters."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self._schemas = schemas
        self._root: Mapping[str, Any] = {}  # of the tool that is called
        self._held = ""  # of a tag, or of a value
        self._key: str | None = None  # of the open value
        self._streams = self._fresh = False  # that value is text; nothing of it was read
        self._given = 0
        self.named = self.done = False

    @property
    def held(self) -> str:
        """What was read and is in no piece."""
        return self._held

    def feed(self, char: str) -> Iterator[Piece]:
        """What this character completes."""
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
        if self._fresh:  # a line break only sets the value apart from its tag
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
    """Where in such a call a row stands, byte by byte. Expects a valid one: a grammar sees to it.

    ``strings`` holds the name under () and each value, as it is written, under its argument's.
    """

    expects: str = "tag"  # or value
    string: bytearray | None = None  # of the open value
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
        if self.expects == "value" and byte == ord("\n"):  # what stood after a parameter's tag
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
