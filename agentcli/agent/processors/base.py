"""Processors shorten a conversation; each sees all of it.

A processor takes a conversation and returns its items, fewer or shorter. It never separates a call
from its result, never changes what is pinned, and never reorders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agentcli.messages import Message, Role, ToolCall, user
from agentcli.text import counted
from agentcli.tools.base import ToolKind

NOTE = "[left out to save room: "
SUMMARY = "[summary of what was said before]\n"


@dataclass(frozen=True, slots=True)
class Item:
    """A message that is shown for the messages ``first`` to ``end`` (exclusive) of the history."""

    first: int
    end: int
    message: Message
    tokens: int
    pinned: bool = False

    @property
    def note(self) -> bool:
        """Whether it only says that something was left out."""
        return self.message.role is Role.USER and self.message.text.startswith(NOTE)

    @property
    def summary(self) -> bool:
        """Whether it is the summary of what an earlier compaction left out."""
        return self.message.role is Role.USER and self.message.text.startswith(SUMMARY)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a processor sees. ``target`` is the number of tokens at which it is short enough.

    ``goal`` is what the user wants now; ``purpose`` says what a call is for. ``summarize`` takes a
    prompt and a text, asks a model for a summary, and raises ``ProviderError``. A processor can
    put the scores it gave into ``scores``, by the number of an item's first message.
    """

    items: tuple[Item, ...]
    target: int
    goal: str
    size_of: Callable[[Message], int]
    purpose: Callable[[ToolCall], ToolKind | None]
    summarize: Callable[[str, str], Awaitable[str]]
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The tokens of all items."""
        return sum(item.tokens for item in self.items)

    def changed(self, item: Item, message: Message) -> Item:
        """The item with another message, if that is shorter; otherwise the item itself."""
        shorter = replace(item, message=message, tokens=self.size_of(message))
        return shorter if shorter.tokens < item.tokens else item

    def groups(self) -> list[tuple[int, ...]]:
        """Indices of items that must stay together: an answer with the results of its calls."""
        groups: list[tuple[int, ...]] = []
        for number, item in enumerate(self.items):
            if item.message.role is Role.TOOL and groups:
                groups[-1] += (number,)
            else:
                groups.append((number,))
        return groups

    def free_groups(self, kept: int = 0) -> list[tuple[int, ...]]:
        """Groups without pinned items, oldest first, except the last ``kept`` of all groups."""
        groups = self.groups()
        return [
            group
            for group in groups[: len(groups) - kept if kept else None]
            if not any(self.items[number].pinned for number in group)
        ]

    def results(self, kept: int) -> Iterator[tuple[int, Item]]:
        """Yield items with a tool result that may be shortened: all but the last ``kept``."""
        numbers = [n for n, item in enumerate(self.items) if item.message.role is Role.TOOL]
        for number in numbers[: len(numbers) - kept if kept else None]:
            if not self.items[number].pinned:
                yield number, self.items[number]

    def without(self, gone: Collection[int], told: str = "") -> tuple[Item, ...]:
        """The items without those in ``gone``; notes say how many messages were left out.

        ``told``, if given, replaces the last note. Adjacent notes are merged.
        """
        parts: list[Item | list[Item]] = []
        for number, item in enumerate(self.items):
            after = bool(parts) and isinstance(parts[-1], list)
            if number in gone or (item.note and (after or number + 1 in gone)):
                if not after:
                    parts.append([])
                stretch = parts[-1]
                assert isinstance(stretch, list)
                stretch.append(item)
            else:
                parts.append(item)
        last = max((n for n, part in enumerate(parts) if isinstance(part, list)), default=-1)
        return tuple(
            self._gap(part, told if number == last else "") if isinstance(part, list) else part
            for number, part in enumerate(parts)
        )

    def _gap(self, stretch: Sequence[Item], told: str) -> Item:
        first, end = stretch[0].first, stretch[-1].end
        message = user(told or f"{NOTE}{counted(end - first, 'earlier message')}]")
        return Item(first, end, message, self.size_of(message))


def words(message: Message) -> str:
    """The whole content of a message as one text."""
    if message.role is Role.TOOL:
        result = message.result
        return f"{result.name} {' '.join(result.paths)} {result.content}"
    calls = (f"{call.name} {call.arguments}" for call in message.calls)
    return " ".join((message.text, *calls))


class Processor(Protocol):
    """One way of making a conversation shorter."""

    @property
    def name(self) -> str:
        """The name used in events and settings."""
        ...

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """Return the items to keep, in order; unchanged if there is nothing to shorten."""
        ...
