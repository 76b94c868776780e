"""Watches whether a request starts like the previous one: what follows a difference is paid again.

Providers and the local engine cache the prefix of a conversation. A change near its start makes
them process it again; the event names the cause.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from agentcli.agent.events import PrefixBroken
from agentcli.agent.state import AgentState
from agentcli.llm.client import ChatRequest, LLMClient, TellsReuse
from agentcli.messages import Message, Role, Usage

_LEAST_LOST = 1024
"""In tokens. Providers cache no shorter prefixes, and not exactly to the token."""


class Prefix:
    """The part of the last request that a cache could hold."""

    def __init__(self) -> None:
        self._model = ""
        self._request: ChatRequest | None = None
        self._tokens = 0
        self._cached = False
        self._compactions = 0

    def broken(
        self, client: LLMClient, request: ChatRequest, state: AgentState
    ) -> PrefixBroken | None:
        """The event for a request that breaks the prefix; None if it extends the previous one."""
        found = self._broken(client, request, state)
        self._model, self._request = _name(client), request
        self._compactions = len(state.compactions)
        if found is not None:
            self._tokens = 0  # already reported: no cache is expected to hold this request
        return found

    def answered(
        self, usage: Usage, state: AgentState, client: LLMClient | None = None
    ) -> PrefixBroken | None:
        """The event for an answer whose usage shows that a cache in use was lost; else None."""
        held, self._tokens = self._tokens, usage.total_tokens
        used = self._cached
        self._cached = bool(usage.cached_tokens or usage.cache_write_tokens)
        lost = min(held, usage.input_tokens) - usage.cached_tokens
        if used and held and lost >= max(_LEAST_LOST, held // 2):
            why = client.reuse.why if isinstance(client, TellsReuse) else ""
            return PrefixBroken(state.running_step, why or "expired", lost)
        return None

    def _broken(
        self, client: LLMClient, request: ChatRequest, state: AgentState
    ) -> PrefixBroken | None:
        before, held, step = self._request, self._tokens, state.running_step
        if before is None or not held:
            return None
        if _name(client) != self._model:
            return PrefixBroken(step, "model", held)
        if before.tools != request.tools:
            return PrefixBroken(step, "tools", held)
        same = _common(before.messages, request.messages)
        if same == len(before.messages):
            return None
        lost = min(held, sum(map(client.size_of, before.messages[same:])))
        if len(state.compactions) != self._compactions:
            return PrefixBroken(step, "compaction", lost)
        if before.messages[same].role is Role.SYSTEM:
            return PrefixBroken(step, "prompt", held)
        return PrefixBroken(step, "history", lost)


def _name(client: LLMClient) -> str:
    return f"{client.info.provider}:{client.info.id}"


def _common(one: Sequence[Message], other: Sequence[Message]) -> int:
    """The length of the common prefix. Usually the messages are the same objects."""
    if len(one) <= len(other) and all(map(operator.is_, one, other)):
        return len(one)
    for number, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine is not yours and mine != yours:
            return number
    return min(len(one), len(other))
