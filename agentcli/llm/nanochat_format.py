"""The embedded model's conversation format: messages to tokens, and tokens to stream events.

``NanochatFormat`` is used by the embedded model and nanochat's checkpoints, identically in
training and in use::

    conversation = <|bos|> [system] { user | turn | result }
    system       = <|system_start|> text <|system_end|>
    user         = <|user_start|> text <|user_end|>
    turn         = <|assistant_start|> said { call } <|assistant_end|>
    said         = { text | <|python_start|> expression <|python_end|> output }
    call         = <|call_start|> {"name": "grep", "arguments": {"pattern": "x"}} <|call_end|>
    result       = output                        one for each call of the turn, in their order
    output       = <|output_start|> text <|output_end|>

A turn is one answer of the model: text, or calls, or text and then calls. It always ends with
``<|assistant_end|>``. The results of its calls follow, then the next ``<|assistant_start|>``.
nanochat's own tokenizer has no ``<|system_start|>``; a system message then precedes the next user
message, separated by a blank line, as in nanochat's own rendering.

A call is JSON as written by ``json.dumps(..., ensure_ascii=False)``, with the keys of
``arguments`` in the order of the tool's parameters. Tools are not described in the prompt: the
model knows them from training. ``agentcli.llm.compact`` shortens results before they are encoded.

The in-stream block (``python_start`` to ``output_end``) is part of a turn: the decoder runs the
expression and forces the output. In messages, it is an assistant message that ends with one call
of ``INLINE_TOOL``, the result, and an assistant message that continues.

A model that cannot do what is asked calls ``DECLINE_TOOL`` with one argument, ``reason``: one
honest sentence for the user and what to do instead.

The mask is 1 for what the model itself must say: text, expressions, calls and the end marks.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from agentcli.errors import ModelError
from agentcli.llm.chat_format import TokenCodec
from agentcli.llm.client import (
    Finished,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from agentcli.llm.compact import compact
from agentcli.messages import FinishReason, Message, Role, Text, ToolCall

INLINE_TOOL = "calculator"
INLINE_ARGUMENT = "expression"
DECLINE_TOOL = "decline"
SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
    "<|system_start|>",
    "<|system_end|>",
    "<|call_start|>",
    "<|call_end|>",
)


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of one message; ``mask`` is 1 for the model's own tokens."""

    tokens: list[int]
    mask: list[int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The tokens of a conversation; ``mask`` as in ``Segment``."""

    tokens: list[int]
    mask: list[int]


@dataclass
class _Pen:
    """Collects tokens with their mask."""

    codec: TokenCodec
    tokens: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)

    def mark(self, name: str, own: int = 0) -> None:
        self.tokens.append(self.codec.special_id(name))
        self.mask.append(own)

    def text(self, text: str, own: int = 0) -> None:
        ids = self.codec.encode(text)
        self.tokens += ids
        self.mask += [own] * len(ids)


class NanochatFormat:
    """Encodes conversations in the format that the module's docstring describes."""

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._marks_system = _knows(codec, "<|system_start|>")

    def segments(
        self, messages: Sequence[Message], *, silent: Collection[int] = ()
    ) -> list[Segment]:
        """One segment for each message; messages whose index is in ``silent`` have mask 0."""
        segments: list[Segment] = []
        inline = False  # whether the previous message's turn is still open
        before = ""  # a system message without marks of its own
        for index, message in enumerate(messages):
            pen = _Pen(self._codec)
            if index == 0:
                pen.mark("<|bos|>")
            own = 0 if index in silent else 1
            match message.role:
                case Role.SYSTEM if self._marks_system:
                    _wrapped(pen, "system", message.text)
                case Role.SYSTEM:
                    before = f"{message.text}\n\n"
                case Role.USER:
                    _wrapped(pen, "user", before + message.text)
                    before = ""
                case Role.TOOL:
                    result = message.result
                    _wrapped(pen, "output", compact(result.name, result.content))
                case Role.ASSISTANT:
                    if not inline:
                        pen.mark("<|assistant_start|>")
                    inline = _is_inline(message)
                    _turn(pen, message, inline, own)
            segments.append(Segment(pen.tokens, pen.mask))
        return segments

    def render(
        self, messages: Sequence[Message], *, answer: bool = False, silent: Collection[int] = ()
    ) -> Rendered:
        """The whole conversation; with ``answer``, it ends with the start of the model's turn."""
        tokens: list[int] = []
        mask: list[int] = []
        for segment in self.segments(messages, silent=silent):
            tokens += segment.tokens
            mask += segment.mask
        if answer and not is_open(messages):
            tokens.append(self._codec.special_id("<|assistant_start|>"))
            mask.append(0)
        return Rendered(tokens, mask)

    def parser(self) -> NanochatParser:
        return NanochatParser(self._codec)


def _knows(codec: TokenCodec, mark: str) -> bool:
    try:
        codec.special_id(mark)
    except (ModelError, ValueError):
        return False
    return True


def call_text(call: ToolCall) -> str:
    """The text between ``call_start`` and ``call_end``."""
    name = json.dumps(call.name, ensure_ascii=False)
    return f'{{"name": {name}, "arguments": {call.arguments or "{}"}}}'


def arguments_text(**arguments: object) -> str:
    """Arguments as the model writes them, with keys in the given order."""
    return json.dumps(arguments, ensure_ascii=False)


def inline_source(call: ToolCall) -> str:
    """The expression of an in-stream call, or its raw arguments if they have no expression."""
    try:
        value = json.loads(call.arguments)
    except ValueError:
        return call.arguments
    source = value.get(INLINE_ARGUMENT) if isinstance(value, dict) else None
    return source if isinstance(source, str) else call.arguments


def _is_inline(message: Message) -> bool:
    calls = message.calls
    return len(calls) == 1 and calls[0].name == INLINE_TOOL


def is_open(messages: Sequence[Message]) -> bool:
    """Whether the last turn is still open, because the last message is an in-stream result."""
    if len(messages) < 2 or messages[-1].role is not Role.TOOL:
        return False
    return messages[-2].role is Role.ASSISTANT and _is_inline(messages[-2])


def _wrapped(pen: _Pen, kind: str, text: str) -> None:
    pen.mark(f"<|{kind}_start|>")
    pen.text(text)
    pen.mark(f"<|{kind}_end|>")


def _turn(pen: _Pen, message: Message, inline: bool, own: int) -> None:
    for part in message.parts:
        match part:
            case Text(text):
                pen.text(text, own)
            case ToolCall() if inline:
                pen.mark("<|python_start|>", own)
                pen.text(inline_source(part), own)
                pen.mark("<|python_end|>", own)
            case ToolCall():
                pen.mark("<|call_start|>", own)
                pen.text(call_text(part), own)
                pen.mark("<|call_end|>", own)
            case _:  # thinking is not part of this grammar
                pass
    if not inline:
        pen.mark("<|assistant_end|>", own)


_CALL_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*')


class NanochatParser:
    """Reads one answer in ``NanochatFormat``.

    In-stream blocks give no events: the decoder runs them, and the kernel receives them as calls
    of ``INLINE_TOOL``. A malformed call is passed on as written, so that dispatch can tell the
    model what is wrong.
    """

    def __init__(self, codec: TokenCodec) -> None:
        self._names = {codec.special_id(name): name for name in SPECIAL_TOKENS}
        self._codec = codec
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._place = "text"  # or: call, python, output
        self._call = ""  # text of the open call
        self._sent = -1  # characters of the call already processed; -1 until its head is complete
        self._calls = 0
        self.done = False

    def feed(self, token: int) -> list[StreamEvent]:
        if self.done:
            return []
        name = self._names.get(token)
        if name is not None:
            return self._mark(name)
        return list(self._text(self._decoder.decode(self._codec.token_bytes(token))))

    def finish(self, reason: FinishReason | None = None) -> list[StreamEvent]:
        """The last events. Without an end mark the answer was cut off, and so was its open call."""
        events = list(self._text(self._decoder.decode(b"", final=True)))
        if reason is None and self.done:
            reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        self.done = True
        return [*events, Finished(reason or FinishReason.LENGTH)]

    def _mark(self, name: str) -> list[StreamEvent]:
        events = list(self._text(self._decoder.decode(b"", final=True)))
        self._decoder.reset()
        if name in ("<|assistant_end|>", "<|bos|>"):
            if self._place == "call":
                events += self._end_call()
            self.done = True
        elif name == "<|call_start|>":
            self._place, self._call, self._sent = "call", "", -1
        elif name == "<|call_end|>" and self._place == "call":
            events += self._end_call()
        elif name in ("<|python_start|>", "<|output_start|>"):
            self._place = name[2:8]
        elif name in ("<|python_end|>", "<|output_end|>"):
            self._place = "text"
        return events

    def _text(self, text: str) -> Iterator[StreamEvent]:
        if not text or self.done:
            return
        if self._place == "text":
            yield TextDelta(text)
        elif self._place == "call":
            self._call += text
            yield from self._call_progress()

    def _call_progress(self) -> Iterator[StreamEvent]:
        """Stream the arguments, one character behind, because the last brace closes the call."""
        if self._sent < 0:
            head = _CALL_HEAD.match(self._call)
            # Wait: the head may still grow by white space.
            if head is None or head.end() == len(self._call):
                return
            self._sent = head.end()
            yield ToolCallStart(self._calls, self._id(), json.loads(f'"{head[1]}"'))
        end = len(self._call.rstrip()) - 1
        if end > self._sent:
            yield ToolCallDelta(self._calls, self._call[self._sent : end])
            self._sent = end

    def _end_call(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        rest = self._call[max(self._sent, 0) :].rstrip()
        if self._sent < 0:
            events.append(ToolCallStart(self._calls, self._id(), _name_of(self._call)))
            if rest:
                events.append(ToolCallDelta(self._calls, rest))
        elif rest != "}" and rest:
            events.append(ToolCallDelta(self._calls, rest))
        events.append(ToolCallEnd(self._calls))
        self._calls += 1
        self._place = "text"
        return events

    def _id(self) -> str:
        return f"call_{self._calls}"


def _name_of(text: str) -> str:
    """The name in a malformed call, if it can be read."""
    found = re.search(r'"name"\s*:\s*"([^"\\]*)"', text)
    return found[1] if found else "invalid_call"
