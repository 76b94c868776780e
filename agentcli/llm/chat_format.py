"""Interfaces between conversations and tokens, for models that run on this machine.

There is a ``Dialogue`` for agentcli's own format (``nanochat_dialogue``) and one for models with
a chat template (``template_dialogue``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agentcli.llm.client import ChatRequest, StreamEvent
from agentcli.messages import FinishReason, Message


class TokenCodec(Protocol):
    """The part of a tokenizer that formats need. Ordinary text never becomes a special token."""

    def encode(self, text: str) -> list[int]:
        """Encode ordinary text."""
        ...

    def special_id(self, text: str) -> int:
        """The id of a special token such as ``<|bos|>``; raises for any other text."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of an ordinary token."""
        ...


_Kept = TypeVar("_Kept")


class Recent(Generic[_Kept]):
    """Keeps values for the most recently used conversations."""

    def __init__(self, new: Callable[[], _Kept], most: int = 16) -> None:
        self._new = new
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def of(self, name: str) -> _Kept:
        """The value for a conversation, new if there is none."""
        found = self._kept.pop(name) if name in self._kept else self._new()
        self._kept[name] = found
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found


class ChatParser(Protocol):
    """Reads one answer token by token."""

    def feed(self, token: int) -> list[StreamEvent]:
        """Take one token and return the events it completes."""
        ...

    def finish(self, reason: FinishReason | None = None) -> list[StreamEvent]:
        """End the answer and return the remaining events, the last of them ``Finished``.

        ``reason`` is why the engine stopped, or None if the model itself ended the answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation in tokens, ending with the start of the model's turn.

    ``rewritten`` says why the tokens do not extend those of the last request; empty if they do.
    ``pieces`` are consecutive parts of the prompt, as text and tokens. For ``thinking`` see
    ``agentcli.inference.turn_grammar``.
    """

    tokens: list[int]
    rewritten: str = ""
    pieces: tuple[tuple[str, list[int]], ...] = ()
    thinking: str = ""


class Dialogue(Protocol):
    """Conversations in one family's format. Keeps the tokens of the model's own turns."""

    def prompt(self, request: ChatRequest, window: int) -> Prompt:
        """Encode the conversation within ``window`` tokens, leaving room for an answer.

        Raises:
            ContextWindowError: it does not fit.
            ModelError: the model's template does not accept it.
        """
        ...

    def turn(self, request: ChatRequest, prompt: Prompt) -> Mapping[str, Any]:
        """What the engine process needs to constrain the turn; see ``agentcli.inference.host``."""
        ...

    def parser(self, request: ChatRequest, prompt: Prompt) -> ChatParser:
        """A parser for one answer."""
        ...

    def record(
        self, request: ChatRequest, prompt: Prompt, message: Message, tokens: Sequence[int]
    ) -> None:
        """Record that the model answered with ``tokens``, parsed as ``message``."""
        ...

    def size_of(self, message: Message) -> int:
        """The approximate number of tokens of one message."""
        ...
