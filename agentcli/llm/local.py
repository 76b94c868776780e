"""Models on this machine as an ``LLMClient``: the embedded one, and folders of its kind.

Messages become tokens by ``NanochatFormat``; the model's own turns go back as the tokens that it
sampled, since their text may be split in other ways. The engine process compares them with what
its cache holds and computes only what is new.
"""

from __future__ import annotations

import codecs
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agentcli.embedded
from agentcli.config import Settings
from agentcli.errors import ConfigError, ContextWindowError
from agentcli.llm.chat_format import (
    INLINE_ARGUMENT,
    INLINE_TOOL,
    SPECIAL_TOKENS,
    NanochatFormat,
    NanochatParser,
    arguments_text,
    is_open,
)
from agentcli.llm.client import (
    ChatRequest,
    ChatResponse,
    Finished,
    ModelInfo,
    StreamEvent,
    StreamFold,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageDelta,
)
from agentcli.llm.engine import EngineProcess
from agentcli.llm.tokens import TokenCount
from agentcli.llm.window import fitted
from agentcli.messages import FinishReason, Message, Role, ToolDefinition, Usage
from agentcli.model.tokenizer import Tokenizer, load_tokenizer, read_json

EMBEDDED = Path(agentcli.embedded.__file__).parent
ANSWER_TOKENS = 640
"""Room that is kept for an answer where the conversation is long."""
_CONVERSATIONS = 16

_Said = tuple[str, tuple[tuple[str, str], ...]]


def connect(path: Path | None, settings: Settings) -> LocalClient:
    """The client of a model folder; None: the embedded model. Nothing is started yet.

    Raises:
        CheckpointError: the folder has no readable tokenizer or configuration.
        ConfigError: the model is of a family whose conversations are not known here.
    """
    folder = path or EMBEDDED
    config = read_json(folder / "config.json")
    tokenizer = load_tokenizer(folder)
    if "model" not in config or not set(SPECIAL_TOKENS) <= set(tokenizer.special):
        raise ConfigError(
            f"{folder}: a model that was not trained with agentcli's tools",
            hint="Serve it with ollama or vllm, and name it ollama:NAME or vllm:NAME",
        )
    info = ModelInfo(
        id="" if path is None else str(path),
        provider="embedded" if path is None else "local",
        context_window=int(config["model"]["sequence_len"]),
        fits_itself=True,
    )
    return LocalClient(info, tokenizer, EngineProcess(folder))


@dataclass
class _Conversation:
    """Tokens of the model's own turns by what they say, and which results are left out."""

    turns: dict[_Said, list[int]] = field(default_factory=dict)
    short: frozenset[int] = frozenset()


class LocalClient:
    """A model in the engine process. Several clients may share one process (``owns`` False)."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        engine: EngineProcess,
        *,
        owns: bool = True,
    ) -> None:
        self.info = info
        self._tokenizer = tokenizer
        self._engine = engine
        self._owns = owns
        self._format = NanochatFormat(tokenizer)
        self._python_end = tokenizer.special_id("<|python_end|>")
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()

    @classmethod
    def sharing(cls, other: LocalClient) -> LocalClient:
        """Another client of the same engine process, which stays the other's to end."""
        return cls(other.info, other._tokenizer, other._engine, owns=False)

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """See ``LLMClient.stream``."""
        conversation = self._conversation(request.conversation)
        wanted = self._wanted(request, conversation)
        parser = self._format.parser()
        fold = StreamFold()
        sampled: list[int] = []
        usage = Usage(input_tokens=len(wanted["tokens"]))
        async with aclosing(self._engine.generate(wanted, request.argument_text)) as events:
            async for event in events:
                if event["event"] == "token":
                    sampled.append(event["token"])
                    for delta in parser.feed(event["token"]):
                        fold.add(delta)
                        yield delta
                else:
                    usage = Usage(event["prompt"], event["reused"], output_tokens=event["output"])
        for delta in self._ending(parser, sampled):
            fold.add(delta)
            if isinstance(delta, Finished):
                yield UsageDelta(usage)
            yield delta
        conversation.turns[_said(fold.response().message)] = sampled

    async def propose(self, request: ChatRequest, count: int) -> AsyncGenerator[ChatResponse, None]:
        """See ``Proposes.propose``; different tokens may say the same."""
        conversation = self._conversation(request.conversation)
        wanted = {**self._wanted(request, conversation), "count": count}
        wanted["max_tokens"] = min(wanted["max_tokens"], ANSWER_TOKENS)
        async with aclosing(self._engine.generate(wanted, request.argument_text)) as events:
            async for event in events:
                if event["event"] != "proposal":
                    continue
                fold, parser = StreamFold(), self._format.parser()
                for token in event["tokens"]:
                    for delta in parser.feed(token):
                        fold.add(delta)
                for delta in parser.finish():
                    fold.add(delta)
                response = fold.response()
                conversation.turns.setdefault(_said(response.message), event["tokens"])
                yield response

    def _wanted(self, request: ChatRequest, conversation: _Conversation) -> dict[str, Any]:
        """The request as the engine process reads it."""
        tokens = self._prompt(request, conversation)
        sampling = request.sampling
        room = (self.info.context_window or 0) - len(tokens)
        return {
            "conversation": request.conversation,
            "tokens": tokens,
            "max_tokens": min(room, sampling.max_tokens or room),
            "sampling": {
                "temperature": sampling.temperature or 0.0,
                "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
                "seed": sampling.seed or 0,
            },
            "tools": [_offered(tool) for tool in request.tools if tool.name != INLINE_TOOL],
            "inline": any(tool.name == INLINE_TOOL for tool in request.tools),
            "begun": False,
        }

    async def count_tokens(self, request: ChatRequest, *, exact: bool = False) -> TokenCount:
        """Exactly the tokens that ``stream`` would send."""
        tokens = len(self._prompt(request, self._conversation(request.conversation)))
        return TokenCount(tokens, exact=True)

    def size_of(self, message: Message) -> int:
        """The tokens of one message, as it stands."""
        return len(self._format.segments([message])[0].tokens)

    async def aclose(self) -> None:
        """End the engine process, if it is this client's own."""
        if self._owns:
            await self._engine.aclose()

    def _ending(self, parser: NanochatParser, sampled: Sequence[int]) -> list[StreamEvent]:
        """The last events; an in-stream block that was just closed becomes a call."""
        if not sampled or sampled[-1] != self._python_end:
            return parser.finish()
        source = self._last_block(sampled)
        head = [event for event in parser.finish() if not isinstance(event, Finished)]
        arguments = arguments_text(**{INLINE_ARGUMENT: source})
        return [
            *head,
            ToolCallStart(0, "call_0", INLINE_TOOL),
            ToolCallDelta(0, arguments),
            ToolCallEnd(0),
            Finished(FinishReason.TOOL_CALLS),
        ]

    def _last_block(self, sampled: Sequence[int]) -> str:
        start = len(sampled) - 1 - sampled[::-1].index(self._tokenizer.special_id(_PYTHON_START))
        data = b"".join(self._tokenizer.token_bytes(token) for token in sampled[start + 1 : -1])
        return codecs.decode(data, "utf-8", "replace")

    def _prompt(self, request: ChatRequest, conversation: _Conversation) -> list[int]:
        """The conversation in tokens, the next turn opened at the end.

        Raises:
            ContextWindowError: it does not fit, however short the results are made.
        """
        window = self.info.context_window or 0
        messages: Sequence[Message] = request.messages
        pieces = self._pieces(messages, conversation)
        room = window - min(ANSWER_TOKENS, window // 4)
        messages, conversation.short = fitted(
            messages,
            [len(piece) for piece in pieces],
            room,
            short=conversation.short,
            size_of=self.size_of,
        )
        tokens = [token for piece in self._pieces(messages, conversation) for token in piece]
        if not is_open(messages):
            tokens.append(self._tokenizer.special_id("<|assistant_start|>"))
        if len(tokens) >= window:
            raise ContextWindowError(
                f"the conversation of {len(tokens)} tokens does not fit the window of {window}",
                hint="Begin a new session, or choose another model with --model",
                provider=self.info.provider,
            )
        return tokens

    def _pieces(self, messages: Sequence[Message], conversation: _Conversation) -> list[list[int]]:
        """The tokens of each message; sampled ones where the model itself said it."""
        pieces: list[list[int]] = []
        start = self._tokenizer.special_id("<|assistant_start|>")
        for message, segment in zip(messages, self._format.segments(messages), strict=True):
            piece = segment.tokens
            if message.role is Role.ASSISTANT:
                sampled = conversation.turns.get(_said(message))
                if sampled is not None:
                    opened = 1 + piece.index(start) if start in piece else 0
                    piece = [*piece[:opened], *sampled]
            pieces.append(piece)
        return pieces

    def _conversation(self, name: str) -> _Conversation:
        found = self._conversations.pop(name, None) or _Conversation()
        self._conversations[name] = found
        while len(self._conversations) > _CONVERSATIONS:
            self._conversations.popitem(last=False)
        return found


_PYTHON_START = "<|python_start|>"


def _said(message: Message) -> _Said:
    """What a turn says; the ids of its calls are given by others."""
    return message.text, tuple((call.name, call.arguments) for call in message.calls)


def _offered(tool: ToolDefinition) -> Mapping[str, Any]:
    return {"name": tool.name, "parameters": tool.parameters, "text_of": tool.text_of}
