"""Conversations for the tests of processors; their size is counted in characters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentcli.agent.processors.base import Conversation, Item
from agentcli.errors import OverloadedError
from agentcli.llm.tokens import message_tokens
from agentcli.messages import (
    Message,
    Role,
    ToolCall,
    ToolResult,
    assistant,
    system,
    tool,
    user,
    validate_history,
)
from agentcli.tools.base import ToolKind

KINDS = {
    "read_file": ToolKind.READ,
    "grep": ToolKind.SEARCH,
    "run_tests": ToolKind.CHECK,
    "shell": ToolKind.RUN,
}


def size_of(message: Message) -> int:
    """Count one token per character."""
    return round(message_tokens(message, len))


def conversation(
    messages: Sequence[Message],
    *,
    target: int = 0,
    goal: str = "",
    pinned: Iterable[int] = (),
    summary: str | None = None,
) -> Conversation:
    """Make a conversation. ``summary`` is the model's summary; None: the model is unavailable."""
    pins = set(pinned)
    users = [n for n, message in enumerate(messages) if message.role is Role.USER]
    pins.update(n for n, message in enumerate(messages) if message.role is Role.SYSTEM)
    pins.update(users[:1])
    items = tuple(Item(n, n + 1, m, size_of(m), n in pins) for n, m in enumerate(messages))

    async def summarize(prompt: str, text: str) -> str:
        if summary is None:
            raise OverloadedError("busy")
        return summary.replace("{text}", text)

    return Conversation(items, target, goal, size_of, lambda call: KINDS.get(call.name), summarize)


def step(number: int, said: str, name: str = "read_file", /, **arguments: Any) -> list[Message]:
    """An answer with one call, and its result."""
    call = ToolCall(f"c{number}", name, json.dumps(arguments or {"path": f"f{number}.py"}))
    return [assistant(f"step {number}", call), tool(ToolResult(call.id, name, said))]


def steps(count: int, content: str = "x" * 100) -> list[Message]:
    """A conversation of ``count`` steps."""
    made = [system("be good"), user("first task")]
    for number in range(count):
        made += step(number, content)
    return made


def shown(items: Iterable[Item]) -> list[Message]:
    """The messages for the model; checks that they are valid and cover the history in order."""
    items = list(items)
    messages = [item.message for item in items]
    validate_history(messages)
    assert items[0].first == 0
    for one, next_ in itertools.pairwise(items):
        assert one.end == next_.first
    return messages
