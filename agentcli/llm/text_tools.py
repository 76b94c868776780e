"""Tool calls through text, for models without native tool calls.

The system prompt describes the tools, results are sent as user messages, and calls are parsed
from the answer's text. Everything else is left to the model's own client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from agentcli.llm.client import (
    ChatRequest,
    Finished,
    LLMClient,
    ModelInfo,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from agentcli.llm.text_calls import MARKS, Form, parse, write
from agentcli.llm.tokens import TokenCount
from agentcli.messages import (
    Image,
    Message,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    system,
    user,
    without_result_images,
)
from agentcli.prompts import Prompts

_OBSERVATION = "\nObservation:"


class TextTools:
    """Wraps another ``LLMClient``; see the module docstring."""

    def __init__(self, client: LLMClient, form: Form, prompts: Prompts) -> None:
        self.client = client
        self.form = form
        self._prompts = prompts
        self._seen: list[Message] = []
        self._sent: list[Message] = []
        self._tools: tuple[ToolDefinition, ...] = ()

    @property
    def info(self) -> ModelInfo:
        """See ``LLMClient``."""
        return self.client.info

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """Stream the answer; text is passed on line by line until a line may begin a call."""
        if not request.tools:
            async with aclosing(self.client.stream(request)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event
            return
        text, shown = "", 0
        calls = 0
        async with aclosing(self.client.stream(self._translated(request))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                    sure = _sure(self.form, text, shown)
                    if sure > shown:
                        yield TextDelta(text[shown:sure])
                        shown = sure
                    continue
                if isinstance(event, Finished):
                    for made in self._made(text, shown, request.tools, calls):
                        yield made
                elif isinstance(event, ToolCallStart):
                    calls = event.index + 1  # the model does have native calls
                yield event

    def _made(
        self, text: str, shown: int, tools: Sequence[ToolDefinition], index: int
    ) -> list[StreamEvent]:
        """The rest of the text, and the calls in it."""
        parsed = parse(self.form, text, tools)
        rest = parsed.text[shown:]
        events: list[StreamEvent] = [TextDelta(rest)] if rest.strip() else []
        for number, call in enumerate(parsed.calls, start=index):
            events += [
                ToolCallStart(number, "", call.name),
                ToolCallDelta(number, call.arguments),
                ToolCallEnd(number),
            ]
        return events

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """See ``LLMClient``."""
        return await self.client.count_tokens(self._translated(request), exact=exact)

    def size_of(self, message: Message) -> int:
        """See ``LLMClient``."""
        return sum(self.client.size_of(plain) for plain in self._plain([message]))

    async def aclose(self) -> None:
        """Close the model's client."""
        await self.client.aclose()

    def _translated(self, request: ChatRequest) -> ChatRequest:
        if not request.tools:
            return replace(request, messages=tuple(self._plain(request.messages)))
        sampling = request.sampling
        if self.form == "react" and _OBSERVATION not in sampling.stop:
            sampling = replace(sampling, stop=(*sampling.stop, _OBSERVATION))
        return replace(request, messages=self._messages(request), tools=(), sampling=sampling)

    def _messages(self, request: ChatRequest) -> tuple[Message, ...]:
        """Translate each message only once, so that a long history does not slow down a step."""
        known = len(self._seen)
        same = (
            self._tools == request.tools
            and known <= len(request.messages)
            and all(a is b for a, b in zip(self._seen, request.messages, strict=False))
        )
        if not same or known == 0:
            self._seen, self._sent, known = [], [], 0
            self._tools = request.tools
        new = list(request.messages[known:])
        if known == 0:
            first, new = self._opening(new, request.tools)
            self._sent.append(first)
        # The results of one answer arrive together, so translating only new messages merges them.
        self._sent += self._plain(new)
        self._seen = list(request.messages)
        return tuple(self._sent)

    def _opening(
        self, messages: list[Message], tools: Sequence[ToolDefinition]
    ) -> tuple[Message, list[Message]]:
        descriptions = "\n".join(_described(tool) for tool in tools)
        prompt = self._prompts.render(f"calls/{self.form}", {"tools": descriptions})
        if messages and messages[0].role is Role.SYSTEM:
            return system(f"{messages[0].text}\n\n{prompt}"), messages[1:]
        return system(prompt), messages

    def _plain(self, messages: Sequence[Message]) -> list[Message]:
        """Messages with calls and results turned into text."""
        plain: list[Message] = []
        results: list[ToolResult] = []
        for message in messages if self.info.images else without_result_images(messages):
            if message.role is Role.TOOL:
                results.append(message.result)
                continue
            if results:
                plain.append(self._said(results))
                results = []
            plain.append(self._written(message) if message.calls else message)
        if results:
            plain.append(self._said(results))
        return plain

    def _said(self, results: Sequence[ToolResult]) -> Message:
        images = (image for result in results for image in result.images)
        return user("\n\n".join(map(self._result, results)), *images)

    def _written(self, message: Message) -> Message:
        parts = [part for part in message.parts if not isinstance(part, ToolCall)]
        texts = [message.text.rstrip()] if message.text.strip() else []
        texts += [write(self.form, call.name, call.arguments) for call in message.calls]
        others = [part for part in parts if not isinstance(part, Text | Image)]
        return Message(message.role, (*others, Text("\n".join(texts))))

    def _result(self, result: ToolResult) -> str:
        if self.form == "react":
            return f"Observation: {result.content}"
        return f"Result of {result.name} ({result.outcome.value}):\n{result.content}"


def _sure(form: Form, text: str, shown: int) -> int:
    """The length of the text that is not part of a call: the lines before a possible call."""
    sure = shown
    for line in text[shown:].splitlines(keepends=True):
        if MARKS[form].search(line) or not line.endswith("\n"):
            break
        sure += len(line)
    return sure


def _described(tool: ToolDefinition) -> str:
    schema = json.dumps(dict(tool.parameters), ensure_ascii=False)
    return f"## {tool.name}\n{tool.description}\nArguments (JSON Schema): {schema}\n"
