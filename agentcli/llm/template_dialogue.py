"""Conversations with models that have a chat template, in their family's own call syntax.

A template may render earlier turns differently from what the model wrote. Each conversation
therefore keeps the text and tokens of its prompts and answers. As far as a newly rendered text
repeats them, their tokens are reused, and only the rest is tokenised. The engine process compares
tokens with its cache and computes the rest again.

For templates without tools, the system prompt describes the tools, in Hermes' syntax.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentcli.errors import ConfigError, ContextWindowError, ModelError
from agentcli.inference.call_syntax import SYNTAXES, THINK, CallSyntax, Piece
from agentcli.inference.calls import CallScanner
from agentcli.llm.chat_format import Prompt, Recent
from agentcli.llm.client import (
    ChatRequest,
    Finished,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from agentcli.llm.nanochat_dialogue import offered
from agentcli.llm.templates import ChatTemplate
from agentcli.messages import FinishReason, Image, Message, Role, Text, ToolCall, ToolDefinition
from agentcli.model.folder import ModelFolder
from agentcli.model.tokenizer import Tokenizer

_TOOLS_PROMPT = """You can call tools. To call one, write nothing but its call, in this form:
<tool_call>
{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}
</tool_call>
The tools, as JSON Schema:
"""
_MESSAGE_TOKENS = 8  # approximate number of marks around a message


@dataclass
class _Conversation:
    """``pieces`` are alternating prompts and answers as text and tokens, without end marks."""

    pieces: tuple[tuple[str, list[int]], ...] = ()


class TemplateDialogue:
    """See ``Dialogue``.

    Raises:
        ConfigError: the folder has no chat template.
    """

    def __init__(self, folder: ModelFolder, tokenizer: Tokenizer) -> None:
        source = folder.chat_template
        if not source:
            raise ConfigError(
                f"{folder.path}: no chat template, so it cannot be talked to",
                hint="A base model can be tried with agentcli generate",
            )
        self._tokenizer = tokenizer
        self._stops = folder.stop_ids(tokenizer)
        self._template = ChatTemplate(source, tokenizer)
        self._name, self._native = syntax_of(source)
        self._syntax = SYNTAXES[self._name]
        self._takes_system = self._says_system()
        self._conversations = Recent(_Conversation)

    def prompt(self, request: ChatRequest, window: int) -> Prompt:
        tools = [_schema(tool) for tool in request.tools] if self._native else []
        text = self._template.render(self._messages(request), tools=tools)
        pieces, rewritten = self._follow(self._conversations.of(request.conversation), text)
        tokens = [token for _, piece in pieces for token in piece]
        if len(tokens) >= window:
            first = len(request.messages) <= 2  # the instructions and a message
            raise ContextWindowError(
                f"the conversation of {len(tokens)} tokens does not fit the window of {window}",
                hint="Most of it are the instructions and tools: choose a model with a larger "
                "window, or give it more with --context"
                if first
                else "Begin a new session, or give the model more with --context",
                provider="local",
            )
        return Prompt(tokens, rewritten, pieces, self._thinking(text))

    def turn(self, request: ChatRequest, prompt: Prompt) -> Mapping[str, Any]:
        return {
            "syntax": self._name,
            "thinking": prompt.thinking,
            # A more capable model may name a file that is not listed, such as a library's.
            "tools": [
                {**offered(tool), "text_of": {k: v for k, v in tool.text_of.items() if v}}
                for tool in request.tools
            ],
        }

    def parser(self, request: ChatRequest, prompt: Prompt) -> CallParser:
        schemas = {tool.name: tool.parameters for tool in request.tools}
        opened = prompt.thinking == "open"
        scanner = CallScanner(self._syntax, thinking=opened, schemas=schemas)
        return CallParser(self._tokenizer, self._syntax, self._stops, scanner)

    def record(
        self, request: ChatRequest, prompt: Prompt, message: Message, tokens: Sequence[int]
    ) -> None:
        kept = [token for token in tokens if token not in self._stops]
        answer = (self._tokenizer.decode(kept), kept)
        self._conversations.of(request.conversation).pieces = (*prompt.pieces, answer)

    def size_of(self, message: Message) -> int:
        """The approximate number of tokens of one message."""
        texts = [_content(message), message.thinking, *(call.arguments for call in message.calls)]
        return _MESSAGE_TOKENS + sum(len(self._tokenizer.encode(text)) for text in texts if text)

    def _follow(
        self, conversation: _Conversation, text: str
    ) -> tuple[tuple[tuple[str, list[int]], ...], str]:
        """Split the rendered text into known pieces and a rest; also say why pieces did not match.

        The reason is empty if all known pieces matched.
        """
        known, at, why = conversation.pieces, 0, ""
        taken: list[tuple[str, list[int]]] = []
        for number, piece in enumerate(known):
            if not text.startswith(piece[0], at):
                answer = number % 2 == 1
                why = "the template rewrites an earlier answer" if answer else "messages changed"
                if answer:  # its first token may merge with the end of the prompt before it
                    at -= len(taken.pop()[0])
                break
            taken.append(piece)
            at += len(piece[0])
        rest = text[at:]
        if len(taken) % 2:  # a prompt without its answer is one piece with the rest
            before, _ = taken.pop()
            rest = before + rest
        return (*taken, (rest, self._template.encode(rest))), why

    def _thinking(self, text: str) -> str:
        """``open`` if the prompt starts the thinking, ``may`` if the answer may, else empty."""
        begin, end = THINK
        if text.rstrip().endswith(begin):
            return "open"
        closed = text.rstrip().endswith(end)
        # DeepSeek's templates only cut off what precedes the end of a thought.
        thinks = any(mark in self._template.source for mark in THINK)
        return "may" if thinks and not closed else ""

    def _says_system(self) -> bool:
        """Whether the template renders system messages."""
        probe = [{"role": "system", "content": "probe"}, {"role": "user", "content": "x"}]
        try:
            return "probe" in self._template.render(probe)
        except ModelError:
            return False

    def _messages(self, request: ChatRequest) -> list[dict[str, Any]]:
        """The messages as templates expect them, with adjacent messages of one role merged."""
        rendered = _native if self._native else _as_text
        messages: list[dict[str, Any]] = []
        system = ""
        for message in _one_call_each(request.messages) if self._syntax.bare else request.messages:
            if message.role is Role.SYSTEM:
                system = f"{system}\n\n{message.text}" if system else message.text
                continue
            one = rendered(message)
            last = messages[-1] if messages else {}
            if one["role"] == last.get("role") != "tool" and not _has_calls(one, last):
                last["content"] = f"{last['content']}\n\n{one['content']}"
            else:
                messages.append(one)
        if not self._native and request.tools:
            tools = "\n".join(json.dumps(_schema(tool)) for tool in request.tools)
            system = f"{system}\n\n{_TOOLS_PROMPT}{tools}".lstrip()
        if system and self._takes_system:
            return [{"role": "system", "content": system}, *messages]
        if system and messages and messages[0]["role"] == "user":
            messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
        elif system:
            messages.insert(0, {"role": "user", "content": system})
        return messages


def syntax_of(template: str) -> tuple[str, bool]:
    """A template's call syntax, and whether it supports tools at all."""
    if "[TOOL_CALLS]" in template:
        return ("mistral_args" if "[ARGS]" in template else "mistral"), True
    if "<tool_call>" in template:
        return ("qwen_coder" if "<function=" in template else "hermes"), True
    if "<|python_tag|>" in template or ("ipython" in template and "parameters" in template):
        return "llama3", True
    return "hermes", False


def _one_call_each(messages: Sequence[Message]) -> Iterator[Message]:
    """Give each call a message of its own, followed by its result, as Llama 3 requires."""
    waiting: dict[str, Message] = {}  # calls after the first of a message, by id
    for message in messages:
        if message.role is Role.TOOL and (call := waiting.pop(message.result.call_id, None)):
            yield call
        elif len(message.calls) > 1:
            _, *others = message.calls
            waiting = {call.id: replace(message, parts=(call,)) for call in others}
            kept = tuple(part for part in message.parts if part not in others)
            message = replace(message, parts=kept)
        yield message


def _native(message: Message) -> dict[str, Any]:
    if message.role is Role.TOOL:
        result = message.result
        return {
            "role": "tool",
            "name": result.name,
            "content": result.content,
            "tool_call_id": _call_id(result.call_id),
        }
    one: dict[str, Any] = {"role": message.role.value, "content": _content(message)}
    if message.thinking:
        one["reasoning_content"] = one["reasoning"] = message.thinking
    if message.calls:
        one["tool_calls"] = [
            {
                "id": _call_id(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call in message.calls
        ]
    return one


def _as_text(message: Message) -> dict[str, Any]:
    """Render calls and results as text, for templates without tools."""
    if message.role is Role.TOOL:
        text = f"<tool_response>\n{message.result.content}\n</tool_response>"
        return {"role": "user", "content": text}
    parts = [_content(message)] if _content(message) else []
    for call in message.calls:
        value = json.dumps({"name": call.name, "arguments": _arguments(call)}, ensure_ascii=False)
        parts.append(f"<tool_call>\n{value}\n</tool_call>")
    return {"role": message.role.value, "content": "\n".join(parts)}


def _has_calls(*messages: Mapping[str, Any]) -> bool:
    return any("tool_calls" in message for message in messages)


def _content(message: Message) -> str:
    if message.role is Role.TOOL:
        return message.result.content
    parts = []
    for part in message.parts:
        match part:
            case Text(text):
                parts.append(text)
            case Image(name=name):
                parts.append(f"[image {name}]")
            case _:
                pass
    return "".join(parts)


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    """The arguments as an object, as templates expect; anything else is wrapped in one."""
    try:
        value = json.loads(call.arguments or "{}")
    except ValueError:
        value = call.arguments
    return value if isinstance(value, dict) else {"arguments": value}


def _call_id(name: str) -> str:
    """Mistral's templates require ids of nine letters or digits."""
    return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=5).hexdigest()[:9]


def _schema(tool: ToolDefinition) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


class CallParser:
    """Reads one answer in a family's call syntax; see ``ChatParser``."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        syntax: CallSyntax,
        stop_ids: frozenset[int],
        scanner: CallScanner,
    ) -> None:
        marks = {syntax.open, syntax.close, syntax.name_end, *THINK}
        self._silent = {i for text, i in tokenizer.special.items() if text not in marks}
        self._silent |= stop_ids
        self._text = tokenizer.stream()
        self._scanner = scanner
        self._calls = 0

    def feed(self, token: int) -> list[StreamEvent]:
        if token in self._silent:
            return []
        return self._events(self._scanner.feed(self._text.push(token)))

    def finish(self, reason: FinishReason | None = None) -> list[StreamEvent]:
        events = self._events(self._scanner.feed(self._text.finish()))
        events += self._events(self._scanner.finish())
        ended = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
        return [*events, Finished(reason or ended)]

    def _events(self, pieces: Iterable[Piece]) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for piece in pieces:
            match piece.kind:
                case "text":
                    events.append(TextDelta(piece.text))
                case "thinking":
                    events.append(ThinkingDelta(piece.text))
                case "name":
                    events.append(ToolCallStart(self._calls, f"call_{self._calls}", piece.text))
                case "arguments":
                    events.append(ToolCallDelta(self._calls, piece.text))
                case "end":
                    events.append(ToolCallEnd(self._calls))
                    self._calls += 1
        return events
