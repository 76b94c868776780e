"""What turns conversations into tokens for models whose tokens we handle ourselves, and back.

A ``Dialogue`` writes one family's conversations: agentcli's own (``nanochat_dialogue``), or those
of a folder with a chat template (``template_dialogue``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agentcli.llm.client import ChatRequest, StreamEvent
from agentcli.messages import FinishReason, Message


class TokenCodec(Protocol):
    """What a format needs of a tokenizer. Ordinary text never becomes a special token."""

    def encode(self, text: str) -> list[int]:
        """Tokens of ordinary text."""
        ...

    def special_id(self, text: str) -> int:
        """The token of a special text such as ``<|bos|>``; raises for any other."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of an ordinary token."""
        ...


_Kept = TypeVar("_Kept")


class Recent(Generic[_Kept]):
    """What is kept of the conversations that were used last, by their names."""

    def __init__(self, new: Callable[[], _Kept], most: int = 16) -> None:
        self._new = new
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def of(self, name: str) -> _Kept:
        """What is kept of a conversation; new if there is nothing."""
        found = self._kept.pop(name) if name in self._kept else self._new()
        self._kept[name] = found
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found


class ChatParser(Protocol):
    """Reads one answer token by token."""

    def feed(self, token: int) -> list[StreamEvent]:
        """The events that this token completes."""
        ...

    def finish(self, reason: FinishReason | None = None) -> list[StreamEvent]:
        """The events that are left when no more tokens come; the last one is ``Finished``.

        ``reason``: why the engine stopped, where it was not the model's own end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation in tokens, the model's turn opened at the end.

    ``rewritten`` says why it does not go on from the tokens of the last request, if it does not.
    ``pieces`` are the texts that the tokens stand for, in their order; ``thinking`` see
    ``agentcli.inference.turn_grammar``.
    """

    tokens: list[int]
    rewritten: str = ""
    pieces: tuple[tuple[str, list[int]], ...] = ()
    thinking: str = ""


class Dialogue(Protocol):
    """One family's conversations. Keeps the tokens that the model said, by conversation."""

    def prompt(self, request: ChatRequest, window: int) -> Prompt:
        """The conversation within ``window`` tokens, room for an answer left.

        Raises:
            ContextWindowError: it does not fit.
            ModelError: the model's template does not take it.
        """
        ...

    def turn(self, request: ChatRequest, prompt: Prompt) -> Mapping[str, Any]:
        """What the engine process must know to mask the turn, see ``agentcli.inference.host``."""
        ...

    def parser(self, request: ChatRequest, prompt: Prompt) -> ChatParser:
        """A reader for one answer."""
        ...

    def said(
        self, request: ChatRequest, prompt: Prompt, message: Message, tokens: Sequence[int]
    ) -> None:
        """The model answered with ``tokens``, which read as ``message``."""
        ...

    def size_of(self, message: Message) -> int:
        """The tokens of one message, about."""
        ...
