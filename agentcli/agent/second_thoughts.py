"""Asks a small model once more, if what it did led to nothing or cannot be what the user meant.

To such a model, a request that it does not understand ("cache the results") is most like one to
run the tests or to look for a name. Those mostly come when there is something to repair or to find.
So if all tests pass, or nothing is found, it has more likely misread the request, and should
decline it more readily than before. If it has searched for a word that does not occur, it may have
miscopied a name, or taken another word for one: then it must make the same search for a word of the
message that names something in the workspace, if there is any.

It also miscopies new names: an edit that nothing but the message asks for may only bring in words
of the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from keyword import iskeyword
from typing import Any

from agentcli.agent.called import Called, since_asked
from agentcli.agent.edit_calls import EditCalls, arguments_of
from agentcli.agent.events import Compacted, Replaced
from agentcli.agent.state import AgentState
from agentcli.errors import EnvironmentOpError, ProviderError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient, chat
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult
from agentcli.tools.base import DECLINE, MATCHES, PATTERN, ToolContext, ToolKind
from agentcli.tools.registry import Registry

_Search = tuple[str, str]
"""The tool and the pattern."""

_MISREAD = "it rests on nothing, so the request was probably misread"
_MISCOPIED = "it brings in a name that is not in the message"
_WORD = re.compile(r"[^\W\d]\w+")
_MOST_WORDS = 200
_MOST_LINES = 1000
_PLACES = (r"\b(?:def|class)\s+({})\b", r"^\s*(?:self\.)?({})\s*(?::.*)?=[^=]", r"\bdef .*\b({})\b")
"""Where a line of Python gives a name to something."""


@dataclass(frozen=True)
class Second:
    """What the model does instead, and why; if ``why`` is empty, its answer stands.

    ``forget``: what it did before is left out from now on. The usage counts what asking has cost.
    """

    response: ChatResponse
    why: str = ""
    forget: bool = False


@dataclass(frozen=True)
class SecondThoughts:
    """Second thoughts about answers of a model that uses ``tools``."""

    tools: Registry
    context: ToolContext

    @property
    def _called(self) -> Called:
        return Called(self.tools)

    async def about(
        self, client: LLMClient, request: ChatRequest, state: AgentState, response: ChatResponse
    ) -> Second:
        """Return what the model does instead of ``response``."""
        since = since_asked(state.history)
        if client.info.reconsiders:
            try:
                if response.message.calls:
                    return await self._with_given_names(client, request, since, response)
                return await self._instead_of_nothing(client, request, since, response)
            except ProviderError:
                pass  # the first answer is good enough
        return Second(response)

    async def _instead_of_nothing(
        self,
        client: LLMClient,
        request: ChatRequest,
        since: Sequence[Message],
        response: ChatResponse,
    ) -> Second:
        """To decline, or to search for something else, if all that was done led to nothing."""
        asked = _until(request.messages, since[0]) if self._led_to_nothing(since) else None
        if asked is None:
            return Second(response)
        again = replace(request, messages=asked, reconsidered=True)
        searched = self._searched(since)
        if searched and (names := await self._names(since[0].text)):
            again = _searching(again, searched, names)
        second = await chat(client, again)
        calls = second.message.calls
        if [call.name for call in calls] == [DECLINE]:
            return Second(second, _MISREAD)
        if again.tools != request.tools and calls and searched.isdisjoint(map(_search, calls)):
            return Second(second, _MISREAD, forget=True)
        return Second(replace(response, usage=response.usage + second.usage))

    async def _with_given_names(
        self,
        client: LLMClient,
        request: ChatRequest,
        since: Sequence[Message],
        response: ChatResponse,
    ) -> Second:
        """The edit with names from the message, if it has others and no test has failed."""
        edit = EditCalls(self.tools).of(response)
        spec = self.tools.spec(edit.name) if edit is not None else None
        if edit is None or spec is None or len(spec.variant_of) != 1 or self._has_failed(since):
            return Second(response)
        [(new, old)] = spec.variant_of.items()
        arguments, given = arguments_of(edit), words_of(since[0].text)
        added = words_of(str(arguments.get(new))).keys() - words_of(str(arguments.get(old))).keys()
        if added <= given.keys() or not _renamed(str(arguments.get(old)), given):
            return Second(response)

        async def text_of(tool: str, written: Mapping[str, Any]) -> str | None:
            if tool == edit.name and old in written and new not in written:
                return "\n".join(_renamed(str(written[old]), given))
            return await request.argument_text(tool, written) if request.argument_text else None

        again = _limited(request, {edit.name}, new)
        second = await chat(client, replace(again, argument_text=text_of))
        if [call.name for call in second.message.calls] == [edit.name]:
            return Second(second, _MISCOPIED)
        return Second(replace(response, usage=response.usage + second.usage))

    def _has_failed(self, messages: Sequence[Message]) -> bool:
        checks = self._called.results(messages, ToolKind.CHECK)
        return any(result.outcome is Outcome.FAILED for _, result in checks)

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
        results = [result for _, result in self._called.results(messages)]
        return bool(results) and all(map(self._is_nothing, results))

    def _is_nothing(self, result: ToolResult) -> bool:
        passed = self._called.kind(result.name) is ToolKind.CHECK
        return result.outcome is Outcome.OK and (passed or result.data.get(MATCHES) == 0)

    def _searched(self, messages: Sequence[Message]) -> set[_Search]:
        """The searches for a word that found nothing."""
        results = self._called.results(messages)
        made = {_search(call) for call, one in results if call and one.data.get(MATCHES) == 0}
        return {(tool, pattern) for tool, pattern in made if words_of(pattern)}

    async def _names(self, text: str) -> list[str]:
        """The words of a text that are names in the workspace's Python code, in order."""
        words = [word for word in words_of(text) if not word.startswith("__")]
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


def words_of(text: str) -> dict[str, None]:
    """The different words of a text that can be names, in order."""
    return {word: None for word in _WORD.findall(text) if not iskeyword(word)}


def _renamed(text: str, given: Mapping[str, None]) -> list[str]:
    """A line in which one name that is given has become another one that is."""
    if "\n" in text:
        return []
    names = [name for name in words_of(text) if name in given]
    return [
        re.sub(rf"\b{re.escape(name)}\b", other, text)
        for name in names
        for other in given
        if other != name
    ]


def _search(call: ToolCall) -> _Search:
    return call.name, str(arguments_of(call).get(PATTERN, ""))


def _searching(request: ChatRequest, searched: Set[_Search], names: Sequence[str]) -> ChatRequest:
    """Limit the same tools to the same searches for these names instead."""
    tools = {tool for tool, _ in searched}
    left = {tool: "\n".join(_instead(tool, searched, names)) for tool in tools}

    async def text_of(tool: str, arguments: Mapping[str, Any]) -> str | None:
        if tool in left and PATTERN not in arguments:
            return left[tool]
        return await request.argument_text(tool, arguments) if request.argument_text else None

    return replace(_limited(request, tools, PATTERN), argument_text=text_of)


def _instead(tool: str, searched: Set[_Search], names: Sequence[str]) -> Iterator[str]:
    for pattern in sorted(pattern for other, pattern in searched if other == tool):
        *_, word = words_of(pattern)
        for name in names:
            new = re.sub(rf"\b{re.escape(word)}\b", name, pattern)
            if (tool, new) not in searched:
                yield new


def _limited(request: ChatRequest, tools: Set[str], argument: str) -> ChatRequest:
    """Have an argument of these tools be a line of what ``argument_text`` returns."""
    limited = tuple(
        replace(tool, text_of={**tool.text_of, argument: ""}) if tool.name in tools else tool
        for tool in request.tools
    )
    return replace(request, tools=limited)


def _until(messages: Sequence[Message], asked: Message) -> tuple[Message, ...] | None:
    """The messages up to the user's last one; None if that was left out."""
    if asked.role is not Role.USER or asked not in messages:
        return None
    last = max(at for at, message in enumerate(messages) if message == asked)
    return tuple(messages[: last + 1])
