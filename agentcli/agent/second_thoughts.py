"""Asks a model once more what to do about the user's message, if what it did led to nothing.

To a small model, a request that it does not understand ("cache the results") is most like one to
run the tests or to look for a name. Those mostly come when there is something to repair or to find.
So if all tests pass, or nothing is found, it has more likely misread the request, and should
decline it more readily than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentcli.agent.called import since_asked
from agentcli.agent.state import AgentState
from agentcli.errors import ProviderError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, chat
from agentcli.messages import Message, Outcome, Role, ToolResult
from agentcli.tools.base import DECLINE, MATCHES, ToolKind
from agentcli.tools.registry import Registry


async def second_thoughts(
    client: LLMClient,
    tools: Registry,
    request: ChatRequest,
    state: AgentState,
    response: ChatResponse,
) -> ChatResponse:
    """Return the model's answer to the user's message alone if it declines it after all.

    Otherwise the final answer ``response``, with the tokens that asking again has cost.
    """
    since = since_asked(state.history)
    if not client.info.reconsiders or response.message.calls or not _led_to_nothing(tools, since):
        return response
    asked = _until(request.messages, since[0])
    if asked is None:
        return response
    try:
        second = await chat(client, replace(request, messages=asked, reconsidered=True))
    except ProviderError:
        return response  # it is good enough
    if [call.name for call in second.message.calls] == [DECLINE]:
        return second
    return replace(response, usage=response.usage + second.usage)


def _led_to_nothing(tools: Registry, messages: Sequence[Message]) -> bool:
    results = [part for said in messages for part in said.parts if isinstance(part, ToolResult)]
    return bool(results) and all(_is_nothing(tools, result) for result in results)


def _is_nothing(tools: Registry, result: ToolResult) -> bool:
    spec = tools.spec(result.name)
    if spec is None or result.outcome is not Outcome.OK:
        return False
    return spec.kind is ToolKind.CHECK or result.data.get(MATCHES) == 0


def _until(messages: Sequence[Message], asked: Message) -> tuple[Message, ...] | None:
    """The messages up to the user's last one; None if that was left out."""
    if asked.role is not Role.USER or asked not in messages:
        return None
    last = max(at for at, message in enumerate(messages) if message == asked)
    return tuple(messages[: last + 1])
