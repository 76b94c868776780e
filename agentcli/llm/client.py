"""One protocol over every model, local or remote.

A client streams; ``chat`` is the fold of that stream, so both give the same answer. A client
never retries and raises only errors of ``agentcli.errors``: retrying is the kernel's, where it
is visible as an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from agentcli.errors import StreamBrokenError
from agentcli.llm.tokens import TokenCount
from agentcli.messages import (
    FinishReason,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolDefinition,
    Usage,
)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model. ``context_window`` and ``max_output`` in tokens; None: unknown.

    ``fits_itself``: its client keeps a long conversation within the window.
    """

    id: str
    provider: str
    context_window: int | None = None
    max_output: int | None = None
    images: bool = False
    priced_by: str = ""
    fits_itself: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. None leaves the choice to the model's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model.

    ``conversation`` names what a cache may extend. ``argument_text`` is bound by the kernel for
    local models: the text that an argument must be a piece of.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    conversation: str = ""
    argument_text: Callable[[str, Mapping[str, Any]], Awaitable[str | None]] | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the model's reasoning; a signature or opaque data closes its block."""

    text: str
    signature: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call begins. ``index`` tells parallel calls apart."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call's argument text."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call is complete as the model wrote it."""

    index: int


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """Tokens used by this call so far; the last one holds.

    ``doubt`` is what of the server's counts cannot be; then none of them is believed.
    """

    usage: Usage
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end mark; a stream without one is broken."""

    reason: FinishReason


StreamEvent: TypeAlias = (
    TextDelta | ThinkingDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | UsageDelta | Finished
)


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A whole answer. ``cut_calls`` counts calls that had begun and were never ended."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    cut_calls: int = 0


class LLMClient(Protocol):
    """A model that can be asked."""

    @property
    def info(self) -> ModelInfo:
        """What is known of it."""
        ...

    def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """The answer as it comes, ending with ``Finished``. Raises ``ProviderError``."""
        ...

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """Prompt tokens of the request. With ``exact`` the provider may be asked for them.

        Raises:
            ProviderError: it was asked, and did not answer.
        """
        ...

    def size_of(self, message: Message) -> int:
        """About the tokens of one message."""
        ...

    async def aclose(self) -> None:
        """Close connections or processes."""
        ...


@dataclass(frozen=True, slots=True)
class EditPlace:
    """A piece of a file that may want another text; ``cost`` is 0 for the likeliest places."""

    path: str
    old: str
    cost: float = 0.0


@runtime_checkable
class Proposes(Protocol):
    """A client that can answer one request in several ways at once."""

    def propose(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace] = ()
    ) -> AsyncIterator[ChatResponse]:
        """Different whole answers, the likeliest first. Each is a call of an offered tool.

        ``places`` are looked at before others.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reuse:
    """What the last request found in a cache: ``held`` tokens, of which ``reused`` served it.

    ``why`` says why it was not all of them; empty where it was.
    """

    held: int = 0
    reused: int = 0
    why: str = ""


@runtime_checkable
class TellsReuse(Protocol):
    """A client whose cache is its own, so that it knows what became of it."""

    reuse: Reuse


class StreamFold:
    """Folds stream events into one answer."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._kind: str = ""
        self._text: list[str] = []
        self._calls: dict[int, int] = {}
        self._arguments: dict[int, list[str]] = {}
        self._ended: set[int] = set()
        self._usage = Usage()
        self._reason: FinishReason | None = None
        self.begun = False
        """Whether there was any event."""

    def add(self, event: StreamEvent) -> None:
        """Take one more event."""
        self.begun = True
        match event:
            case TextDelta(text):
                self._open("text")
                self._text.append(text)
            case ThinkingDelta(text, signature, data):
                self._open("thinking")
                self._text.append(text)
                if signature or data:
                    self._parts.append(Thinking("".join(self._text), signature, data))
                    self._text, self._kind = [], ""
            case ToolCallStart(index, id, name):
                self._open("")
                self._calls[index] = len(self._parts)
                self._arguments[index] = []
                self._parts.append(ToolCall(id, name))
            case ToolCallDelta(index, arguments):
                self._arguments[index].append(arguments)
            case ToolCallEnd(index):
                self._ended.add(index)
            case UsageDelta(usage):
                self._usage = usage
            case Finished(reason):
                self._reason = reason

    @property
    def usage(self) -> Usage:
        """What was counted so far, also of an answer that breaks off."""
        return self._usage

    def response(self) -> ChatResponse:
        """The answer so far.

        Raises:
            StreamBrokenError: the stream had no end mark.
        """
        if self._reason is None:
            raise StreamBrokenError("the model's answer ended before its end mark")
        self._open("")
        parts = list(self._parts)
        cut: set[int] = set()
        for index, place in self._calls.items():
            call = parts[place]
            assert isinstance(call, ToolCall)
            parts[place] = ToolCall(call.id, call.name, "".join(self._arguments[index]))
            if index not in self._ended:
                cut.add(place)
        # A call that the token limit cut through must never run; the last one is suspect even
        # where a provider closes it properly.
        if self._reason is FinishReason.LENGTH and parts and isinstance(parts[-1], ToolCall):
            cut.add(len(parts) - 1)
        kept = tuple(part for place, part in enumerate(parts) if place not in cut)
        return ChatResponse(Message(Role.ASSISTANT, kept), self._reason, self._usage, len(cut))

    def _open(self, kind: str) -> None:
        if kind == self._kind:
            return
        text = "".join(self._text)
        if text and self._kind == "text":
            self._parts.append(Text(text))
        elif text and self._kind == "thinking":
            self._parts.append(Thinking(text))
        self._text, self._kind = [], kind


async def chat(client: LLMClient, request: ChatRequest) -> ChatResponse:
    """Ask and wait for the whole answer: the fold of ``stream``."""
    fold = StreamFold()
    async for event in client.stream(request):
        fold.add(event)
    return fold.response()
