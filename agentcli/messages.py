"""Messages and their parts, in one form for every model.

All values are frozen, so that histories can be shared without copies. ``to_json`` and ``from_json``
convert to and from the journal's format: plain dictionaries, each part with its kind.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

from agentcli.errors import InternalError


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


class Outcome(StrEnum):
    """How a tool call ended."""

    OK = "ok"  # succeeded; for a check: it passed
    FAILED = "failed"  # ran, but the check or command did not succeed
    ERROR = "error"  # could not run: bad arguments, missing file, time-out
    DENIED = "denied"  # not permitted
    CANCELLED = "cancelled"  # stopped before its end, effect unknown
    SKIPPED = "skipped"  # never started


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, Markdown by convention."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's reasoning. ``signature`` and ``data`` are returned to the provider unread."""

    text: str
    signature: str = ""
    data: str = ""


IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The media types that all providers accept."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image as bytes; ``media_type`` is, for example, ``image/png``."""

    data: bytes
    media_type: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it. ``arguments`` is raw JSON text and may be invalid."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of one call.

    The model reads ``content``, which names the ``images``, and sees these if it accepts images.
    ``diff`` (unified) and ``paths`` (relative to the workspace) are for people and bookkeeping;
    ``data`` holds structured details such as an exit code.
    """

    call_id: str
    name: str
    content: str
    outcome: Outcome = Outcome.OK
    diff: str = ""
    paths: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


Part: TypeAlias = Text | Thinking | Image | ToolCall | ToolResult

_ALLOWED: dict[Role, tuple[type, ...]] = {
    Role.SYSTEM: (Text,),
    Role.USER: (Text, Image),
    Role.ASSISTANT: (Text, Thinking, ToolCall),
    Role.TOOL: (ToolResult,),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; its parts are in the order in which they were written."""

    role: Role
    parts: tuple[Part, ...] = ()

    @property
    def text(self) -> str:
        """All text parts, joined; empty for a tool message."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def thinking(self) -> str:
        """All thinking parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Thinking))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in the order the model made them."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def result(self) -> ToolResult:
        """The result of a tool message."""
        for part in self.parts:
            if isinstance(part, ToolResult):
                return part
        raise InternalError(f"a {self.role} message has no tool result")

    def validate(self) -> None:
        """Check that the parts fit the role.

        Raises:
            InternalError: a part is not allowed for this role, a tool message does not have exactly
                one result, a result has an image of a type that no provider accepts, or two calls
                have the same id.
        """
        for part in self.parts:
            if not isinstance(part, _ALLOWED[self.role]):
                raise InternalError(f"a {self.role} message cannot hold {type(part).__name__}")
            if isinstance(part, ToolResult):
                for image in part.images:
                    if image.media_type not in IMAGE_TYPES:
                        raise InternalError(f"a result cannot hold {image.media_type}")
        if self.role is Role.TOOL and len(self.parts) != 1:
            raise InternalError(f"a tool message holds {len(self.parts)} results instead of one")
        ids = [call.id for call in self.calls]
        if len(set(ids)) != len(ids):
            raise InternalError(f"two tool calls share an id: {', '.join(ids)}")


def system(text: str) -> Message:
    """A system message."""
    return Message(Role.SYSTEM, (Text(text),))


ASIDE = "[agentcli]"
"""How the text of an aside begins."""


def user(text: str, *images: Image) -> Message:
    """A user message: the text, then the images."""
    return Message(Role.USER, (Text(text), *images))


def aside(text: str) -> Message:
    """A message of the user's role by which agentcli tells the model something."""
    return user(f"{ASIDE} {text}")


def is_aside(message: Message) -> bool:
    """Whether it was made by ``aside``."""
    return message.role is Role.USER and message.text.startswith(ASIDE)


def assistant(text: str = "", *calls: ToolCall) -> Message:
    """An assistant message: the text, if any, then the calls."""
    return Message(Role.ASSISTANT, ((Text(text),) if text else ()) + calls)


def tool(result: ToolResult) -> Message:
    """A tool message."""
    return Message(Role.TOOL, (result,))


def validate_history(messages: Sequence[Message]) -> None:
    """Check that every call is followed by its result, and every result has its call.

    Raises:
        InternalError: the history is not well-formed; no provider would accept it.
    """
    pending: list[str] = []
    for index, message in enumerate(messages):
        message.validate()
        if message.role is Role.TOOL:
            call_id = message.result.call_id
            if call_id not in pending:
                raise InternalError(f"message {index}: result for unknown call {call_id}")
            pending.remove(call_id)
            continue
        if pending:
            raise InternalError(f"message {index}: calls without results: {', '.join(pending)}")
        pending = [call.id for call in message.calls]
    if pending:
        raise InternalError(f"calls without results at the end: {', '.join(pending)}")


def without_thinking(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages without reasoning, which only the model that wrote it can read."""
    return tuple(
        Message(m.role, tuple(part for part in m.parts if not isinstance(part, Thinking)))
        if any(isinstance(part, Thinking) for part in m.parts)
        else m
        for m in messages
    )


def without_result_images(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages for a model that accepts no images: results say that theirs are not shown."""
    return tuple(
        tool(_without_images(m.result)) if m.role is Role.TOOL and m.result.images else m
        for m in messages
    )


def _without_images(result: ToolResult) -> ToolResult:
    what = "image is" if len(result.images) == 1 else "images are"
    note = f"[the {what} not shown: this model accepts none]"
    return replace(result, content=f"{result.content}\n{note}".lstrip("\n"), images=())


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request to a model, or the sum of many.

    ``input_tokens`` counts the whole prompt; ``cached_tokens`` of it were read from a cache and
    ``cache_write_tokens`` written to one. ``reasoning_tokens`` are part of ``output_tokens``.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def fresh_tokens(self) -> int:
        """Prompt tokens that were not read from a cache."""
        return self.input_tokens - self.cached_tokens

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens - other.input_tokens,
            self.cached_tokens - other.cached_tokens,
            self.cache_write_tokens - other.cache_write_tokens,
            self.output_tokens - other.output_tokens,
            self.reasoning_tokens - other.reasoning_tokens,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as the model sees it.

    ``text_of`` maps an argument to the path argument of the file it must be an exact excerpt of, or
    to ``""`` if it is itself a file's path; a local model's output is constrained to that.
    ``variant_of`` maps an argument with a new text to the argument with the text it replaces.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    text_of: Mapping[str, str] = field(default_factory=dict)
    variant_of: Mapping[str, str] = field(default_factory=dict)


def to_json(message: Message) -> dict[str, Any]:
    """Convert a message to the journal's format."""
    return {"role": message.role.value, "parts": [_part_to_json(part) for part in message.parts]}


def from_json(value: Mapping[str, Any]) -> Message:
    """Inverse of ``to_json``; raises ``KeyError`` or ``ValueError`` for anything else."""
    return Message(Role(value["role"]), tuple(_part_from_json(part) for part in value["parts"]))


def result_to_json(result: ToolResult) -> dict[str, Any]:
    """Convert a tool result to the journal's format; empty fields are left out."""
    value: dict[str, Any] = {
        "call_id": result.call_id,
        "name": result.name,
        "content": result.content,
        "outcome": result.outcome.value,
    }
    if result.diff:
        value["diff"] = result.diff
    if result.paths:
        value["paths"] = list(result.paths)
    if result.data:
        value["data"] = dict(result.data)
    if result.images:
        value["images"] = [_part_to_json(image) for image in result.images]
    return value


def result_from_json(value: Mapping[str, Any]) -> ToolResult:
    """Inverse of ``result_to_json``; raises ``KeyError`` or ``ValueError`` for anything else."""
    return ToolResult(
        call_id=value["call_id"],
        name=value["name"],
        content=value["content"],
        outcome=Outcome(value["outcome"]),
        diff=value.get("diff", ""),
        paths=tuple(value.get("paths", ())),
        data=value.get("data", {}),
        images=tuple(map(_image_from_json, value.get("images", ()))),
    )


def _part_to_json(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"kind": "text", "text": text}
        case Thinking(text, signature, data):
            return {"kind": "thinking", "text": text, "signature": signature, "data": data}
        case Image(data=raw, media_type=media_type, name=name):
            encoded = base64.b64encode(raw).decode("ascii")
            return {"kind": "image", "media_type": media_type, "name": name, "base64": encoded}
        case ToolCall(id, name, arguments):
            return {"kind": "call", "id": id, "name": name, "arguments": arguments}
        case ToolResult():
            return {"kind": "result", **result_to_json(part)}


def _part_from_json(value: Mapping[str, Any]) -> Part:
    match value["kind"]:
        case "text":
            return Text(value["text"])
        case "thinking":
            return Thinking(value["text"], value["signature"], value["data"])
        case "image":
            return _image_from_json(value)
        case "call":
            return ToolCall(value["id"], value["name"], value["arguments"])
        case "result":
            return result_from_json(value)
        case kind:
            raise ValueError(f"unknown message part {kind!r}")


def _image_from_json(value: Mapping[str, Any]) -> Image:
    return Image(base64.b64decode(value["base64"]), value["media_type"], value["name"])
