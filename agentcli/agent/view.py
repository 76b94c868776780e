"""The part of a history that a model sees: stretches can be left out or replaced by a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agentcli.agent.events import Replaced
from agentcli.messages import Message


def stretches(messages: Sequence[Message], replaced: Iterable[Replaced]) -> Iterator[Replaced]:
    """Yield the history as stretches: the replaced ones, and one for each message in between."""
    at = 0
    for stretch in replaced:
        for number in range(at, stretch.first):
            yield Replaced(number, number + 1, messages[number])
        yield stretch
        at = stretch.end
    for number in range(at, len(messages)):
        yield Replaced(number, number + 1, messages[number])


def shown(messages: Sequence[Message], replaced: Iterable[Replaced]) -> Iterator[Message]:
    """Yield the messages of a history that the model sees, in order."""
    for stretch in stretches(messages, replaced):
        if stretch.message is not None:
            yield stretch.message
