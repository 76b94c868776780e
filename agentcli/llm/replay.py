"""A client that plays back recorded answers, without network, model or cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agentcli.errors import ProviderError
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    Finished,
    ModelInfo,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageDelta,
)
from agentcli.llm.tokens import TokenCount, estimate, message_tokens
from agentcli.messages import Message, Text, Thinking, ToolCall
from agentcli.text import counted


class Replay:
    """Gives the answers in order, whatever is asked. ``source`` names the recording."""

    def __init__(self, info: ModelInfo, answers: Sequence[ChatResponse], source: str = "") -> None:
        self.info = info
        self._answers = tuple(answers)
        self._source = source or "the recording"
        self._next = 0

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """Stream the next answer, part by part.

        Raises:
            ProviderError: the recording has no more answers.
        """
        if self._next >= len(self._answers):
            cut = not self._answers or self._answers[-1].message.calls
            raise ProviderError(
                f"{self._source} holds {counted(len(self._answers), 'answer')}, and the run asks "
                "for more",
                hint="It was cut short there"
                if cut
                else "The tools gave other results than when it was recorded",
                provider=self.info.provider,
            )
        answer = self._answers[self._next]
        self._next += 1
        for event in events_of(answer):
            yield event

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """The recorded prompt tokens of the next answer."""
        place = min(self._next, len(self._answers) - 1)
        tokens = self._answers[place].usage.input_tokens if self._answers else 0
        return TokenCount(tokens, exact=False)

    def size_of(self, message: Message) -> int:
        """An estimate."""
        return round(message_tokens(message, estimate))

    async def aclose(self) -> None:
        """Nothing to close."""


def events_of(answer: ChatResponse) -> list[StreamEvent]:
    """The stream that folds to this answer, without calls that were cut off."""
    events: list[StreamEvent] = []
    for index, part in enumerate(answer.message.parts):
        match part:
            case Text(text):
                events.append(TextDelta(text))
            case Thinking(text, signature, data):
                events.append(ThinkingDelta(text, signature, data))
            case ToolCall(id, name, arguments):
                events.append(ToolCallStart(index, id, name))
                events.append(ToolCallDelta(index, arguments))
                events.append(ToolCallEnd(index))
    events.append(UsageDelta(answer.usage))
    events.append(Finished(answer.finish_reason))
    return events
