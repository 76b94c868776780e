"""Watches whether a request begins like the previous one: what differs is paid for again.

Providers and the local engine cache what they have read of a conversation. A change near its
beginning makes them read it again; the event names the cause.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from agentcli.agent.events import PrefixBroken
from agentcli.agent.state import AgentState
from agentcli.llm.client import ChatRequest, LLMClient, TellsReuse
from agentcli.messages import Message, Role, Usage

_LEAST_LOST = 1024
"""Tokens; providers cache nothing shorter, and not to the token."""


class Prefix:
    """The last request as far as a cache could hold it."""

    def __init__(self) -> None:
        self._model = ""
        self._request: ChatRequest | None = None
        self._tokens = 0
        self._cached = False
        self._compactions = 0

    def broken(
        self, client: LLMClient, request: ChatRequest, state: AgentState
    ) -> PrefixBroken | None:
        """What a request breaks, before it is sent; None where it goes on from the one before."""
        found = self._broken(client, request, state)
        self._model, self._request = _name(client), request
        self._compactions = len(state.compactions)
        if found is not None:
            self._tokens = 0  # it is told already: no cache is expected to hold this
        return found

    def answered(
        self, usage: Usage, state: AgentState, client: LLMClient | None = None
    ) -> PrefixBroken | None:
        """What the answer says of the cache: one that was in use and holds next to nothing now."""
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
    """How many messages both begin with; most often they are the very same objects."""
    if len(one) <= len(other) and all(map(operator.is_, one, other)):
        return len(one)
    for number, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine is not yours and mine != yours:
            return number
    return min(len(one), len(other))
