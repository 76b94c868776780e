"""Asks a model once more what to do about the user's message, if what it did led to nothing.

To a small model, a request that it does not understand ("cache the results") is most like one to
run the tests or to look for a name. Those mostly come when there is something to repair or to find.
So if all tests pass, or nothing is found, it has more likely misread the request, and should
decline it more readily than before. If it has searched for a word that does not occur, it may have
miscopied a name, or taken another word for one: then it must search for a word of the message that
names something in the workspace, if there is any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from keyword import iskeyword
from typing import Any

from agentcli.agent.called import since_asked
from agentcli.agent.events import Compacted, Replaced
from agentcli.agent.state import AgentState
from agentcli.errors import EnvironmentOpError, ProviderError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, chat
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult
from agentcli.tools.base import DECLINE, MATCHES, PATTERN, ToolContext, ToolKind
from agentcli.tools.registry import Registry

_Search = tuple[str, str]
"""The tool and the pattern."""

_WORD = re.compile(r"[^\W\d]\w+")
_MOST_WORDS = 200
_MOST_LINES = 1000
_FORMS = ("{}", "def {}", "class {}", "{} =", "def __init__.*{}")
"""What the model searches for if it looks for a name."""
_PLACES = (r"\b(?:def|class)\s+({})\b", r"^\s*(?:self\.)?({})\s*(?::.*)?=[^=]", r"\bdef .*\b({})\b")
"""Where a line of Python gives a name to something."""


@dataclass(frozen=True)
class SecondThoughts:
    """Second thoughts about answers of a model that uses ``tools``."""

    tools: Registry
    context: ToolContext

    async def about(
        self, client: LLMClient, request: ChatRequest, state: AgentState, response: ChatResponse
    ) -> ChatResponse:
        """Return what the model does instead of its final answer ``response``.

        That is to decline, or to search for something else. Otherwise its answer stands, with the
        tokens that asking again has cost.
        """
        since = since_asked(state.history)
        if not client.info.reconsiders or response.message.calls or not self._led_to_nothing(since):
            return response
        asked = _until(request.messages, since[0])
        if asked is None:
            return response
        again = replace(request, messages=asked, reconsidered=True)
        searched = self._searched(since)
        if searched and (names := await self._names(since[0].text)):
            again = _searching(again, searched, names)
        try:
            second = await chat(client, again)
        except ProviderError:
            return response  # it is good enough
        calls = second.message.calls
        searches = again.tools != request.tools and bool(calls)
        if declines(second) or (searches and searched.isdisjoint(map(_search, calls))):
            return second
        return replace(response, usage=response.usage + second.usage)

    def left_out(self, client: LLMClient, step: int, state: AgentState) -> Compacted:
        """Leave out what led to nothing, which would only confuse the model from now on."""
        since = since_asked(state.history)
        end = len(state.history)
        first = end - len(since) + 1
        left_out = sum(map(client.size_of, since[1:]))
        before = sum(map(client.size_of, state.view))
        replaced = [one for one in state.replaced if one.end <= first]
        return Compacted(
            step,
            "what led to nothing is left out",
            before,
            before - left_out,
            ("second thoughts",),
            (*replaced, Replaced(first, end)),
        )

    def _led_to_nothing(self, messages: Sequence[Message]) -> bool:
        results = [part for said in messages for part in said.parts if isinstance(part, ToolResult)]
        return bool(results) and all(map(self._is_nothing, results))

    def _is_nothing(self, result: ToolResult) -> bool:
        spec = self.tools.spec(result.name)
        if spec is None or result.outcome is not Outcome.OK:
            return False
        return spec.kind is ToolKind.CHECK or result.data.get(MATCHES) == 0

    def _searched(self, messages: Sequence[Message]) -> set[_Search]:
        """The searches that found nothing."""
        calls = {call.id: call for message in messages for call in message.calls}
        results = [part for said in messages for part in said.parts if isinstance(part, ToolResult)]
        return {_search(calls[one.call_id]) for one in results if one.data.get(MATCHES) == 0}

    async def _names(self, text: str) -> list[str]:
        """The words of a text that are names in the workspace's Python code, in order."""
        words = [word for word in dict.fromkeys(_WORD.findall(text)) if not iskeyword(word)]
        either = "|".join(map(re.escape, words[:_MOST_WORDS]))
        if not either:
            return []
        places = "|".join(place.format(either) for place in _PLACES)
        try:
            lines = await self.context.environment.grep(places, glob="*.py", limit=_MOST_LINES)
        except EnvironmentOpError:
            return []
        matches = [match for line in lines for match in re.finditer(places, line.text)]
        found = {group for match in matches for group in match.groups() if group}
        return [word for word in words if word in found]


def declines(response: ChatResponse) -> bool:
    """Whether the model declines the task."""
    return [call.name for call in response.message.calls] == [DECLINE]


def _search(call: ToolCall) -> _Search:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return call.name, ""
    return call.name, str(arguments.get(PATTERN, "")) if isinstance(arguments, dict) else ""


def _searching(request: ChatRequest, searched: Set[_Search], names: Sequence[str]) -> ChatRequest:
    """Limit the same tools to searches for these names that have not been made."""
    tools = {tool for tool, _ in searched}
    forms = {tool: [form.format(name) for name in names for form in _FORMS] for tool in tools}
    left = {
        tool: "\n".join(form for form in all_ if (tool, form) not in searched)
        for tool, all_ in forms.items()
    }

    async def text_of(tool: str, arguments: Mapping[str, Any]) -> str | None:
        if tool in left and PATTERN not in arguments:
            return left[tool]
        return await request.argument_text(tool, arguments) if request.argument_text else None

    limited = tuple(
        replace(tool, text_of={**tool.text_of, PATTERN: ""}) if tool.name in tools else tool
        for tool in request.tools
    )
    return replace(request, tools=limited, argument_text=text_of)


def _until(messages: Sequence[Message], asked: Message) -> tuple[Message, ...] | None:
    """The messages up to the user's last one; None if that was left out."""
    if asked.role is not Role.USER or asked not in messages:
        return None
    last = max(at for at, message in enumerate(messages) if message == asked)
    return tuple(messages[: last + 1])
