"""One protocol for every model, local or remote.

Clients stream, and ``chat`` folds the stream, so both give the same answer. A client raises only
errors of ``agentcli.errors`` and never retries: the kernel does, where retries are visible as
events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from agentcli.errors import StreamBrokenError
from agentcli.llm.text_calls import parse
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
    """Facts about a model.

    ``context_window`` and ``max_output`` are in tokens, None if unknown. ``fits_itself`` means
    that the client itself keeps long conversations within the window. ``edit_claims`` are how the
    model's answers begin if they tell of an edit, for a model that may say so without one.
    ``reconsiders`` means that it answers ``ChatRequest.reconsidered`` in another way. ``warning``
    is what the user should know of the model as it is set up; empty if nothing.
    """

    id: str
    provider: str
    context_window: int | None = None
    max_output: int | None = None
    images: bool = False
    priced_by: str = ""
    fits_itself: bool = False
    edit_claims: tuple[str, ...] = ()
    reconsiders: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options; None means the model's default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a model.

    ``conversation`` identifies the conversation for caches. The kernel binds ``argument_text`` for
    local models: from a tool's name and its arguments so far, it returns the text of which the
    next argument must be a substring. ``reconsidered`` means that the model is asked again, since
    what it did on its first answer led to nothing.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    conversation: str = ""
    argument_text: Callable[[str, Mapping[str, Any]], Awaitable[str | None]] | None = None
    reconsidered: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the model's reasoning; a signature or opaque data ends its block."""

    text: str
    signature: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call begins. ``index`` distinguishes parallel calls."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the JSON text of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call is complete."""

    index: int


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """Tokens used by this request so far; the last event counts.

    ``doubt`` names an impossible count of the server, in which case ``usage`` is empty.
    """

    usage: Usage
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the answer; a stream without it is broken."""

    reason: FinishReason


StreamEvent: TypeAlias = (
    TextDelta | ThinkingDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | UsageDelta | Finished
)


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A whole answer. ``cut_calls`` counts tool calls that were dropped as incomplete."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    cut_calls: int = 0

    def calls_in_text(self, tools: Sequence[ToolDefinition]) -> bool:
        """Whether it has no calls but in its text, where a server without a parser leaves them."""
        names = {tool.name for tool in tools}
        found = () if self.message.calls else parse("xml", self.message.text).calls
        return any(call.name in names for call in found)


class LLMClient(Protocol):
    """A model."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        ...

    def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """Stream the answer, ending with ``Finished``.

        Raises:
            ProviderError: the request failed or the answer broke off.
        """
        ...

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """Count the request's prompt tokens; with ``exact``, the provider may be asked.

        Raises:
            ProviderError: the provider was asked and did not answer.
        """
        ...

    def size_of(self, message: Message) -> int:
        """The approximate number of tokens of one message."""
        ...

    async def aclose(self) -> None:
        """Close connections or processes."""
        ...


@dataclass(frozen=True, slots=True)
class EditPlace:
    """A piece of a file that may need an edit; ``cost`` is 0 for the likeliest places."""

    path: str
    old: str
    cost: float = 0.0


@runtime_checkable
class Proposes(Protocol):
    """A client that can propose several answers to one request."""

    def propose(
        self, request: ChatRequest, count: int, places: Sequence[EditPlace] = ()
    ) -> AsyncIterator[ChatResponse]:
        """Stream different whole answers, likeliest first, each a call of an offered tool.

        ``places`` are tried before others.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reuse:
    """Cache use of the last request: of ``held`` cached tokens, ``reused`` could be used.

    ``why`` gives the reason if they are fewer; otherwise it is empty.
    """

    held: int = 0
    reused: int = 0
    why: str = ""


@runtime_checkable
class TellsReuse(Protocol):
    """A client that owns its cache and can report its use."""

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
        """Whether any event has been added."""

    def add(self, event: StreamEvent) -> None:
        """Add one event."""
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
        """The usage so far, which is also valid for an answer that breaks off."""
        return self._usage

    def response(self) -> ChatResponse:
        """The whole answer.

        Raises:
            StreamBrokenError: the stream has not ended with ``Finished``.
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
        # A call cut off by the token limit must never run. The last call is suspect even if the
        # provider closes it properly.
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
    """Fold ``stream`` into the whole answer. Raises what ``stream`` raises."""
    fold = StreamFold()
    async for event in client.stream(request):
        fold.add(event)
    return fold.response()
