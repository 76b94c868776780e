"""A processor that replaces old items with a summary written by the model."""

from __future__ import annotations

from dataclasses import dataclass

from agentcli.agent.processors.base import SUMMARY, Conversation, Item, words
from agentcli.errors import ProviderError
from agentcli.messages import Role
from agentcli.text import truncate

_MESSAGE_CHARS = 1500
"""The limit for each message that is summarized."""
_LINE_CHARS = 200
"""The limit for each message if no model answers."""


@dataclass(frozen=True)
class SummarizeOlderThanN:
    """Replaces everything older than the last ``n`` groups with one summary.

    ``prompt`` tells the model how to write it. If no model answers, the start of each message is
    used instead.
    """

    prompt: str
    n: int = 8
    name: str = "summarize_older_than_n"

    async def process(self, conversation: Conversation) -> tuple[Item, ...]:
        """See ``Processor``."""
        items = conversation.items
        gone = {number for group in conversation.free_groups(self.n) for number in group}
        if all(items[number].summary or items[number].note for number in gone):
            return items
        older = [items[number] for number in sorted(gone)]
        try:
            text = await conversation.summarize(self.prompt, _transcript(older, _MESSAGE_CHARS))
        except ProviderError:
            text = _transcript(older, _LINE_CHARS)
        return conversation.without(gone, f"{SUMMARY}{text.strip()}")


def _transcript(items: list[Item], chars: int) -> str:
    """The messages with their authors; an earlier summary stays whole."""
    lines: list[str] = []
    for item in items:
        message = item.message
        if message.role is Role.TOOL:
            result = message.result
            who, said = f"{result.name}, {result.outcome}", result.content
        else:
            who, said = message.role.value, words(message)
        text = said.strip() if item.summary else str(truncate(said.strip(), chars))
        lines.append(f"<{who}> {text}")
    return "\n".join(lines)
