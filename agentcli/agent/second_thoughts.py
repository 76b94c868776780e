"""Asks a small model once more, if what it did led to nothing or cannot be what the user meant.

To such a model, a request that it does not understand ("cache the results") is most like one to
run the tests or to look for a name. Those mostly come when there is something to repair or to find.
So if all tests pass, or nothing is found, it has more likely misread the request, and should
decline it more readily than before. If it has searched for a word that does not occur, it may have
miscopied a name, or taken another word for one: then it must make the same search for a word of the
message that names something in the workspace, if there is any.

It also miscopies new names, and what stands beside them: an edit that nothing but the message asks
for may only bring in words of the message, and once a name was exchanged, other edits of lines with
that name must do the same and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from agentcli.agent.called import Called, since_asked
from agentcli.agent.edit_calls import EditCalls, arguments_of
from agentcli.agent.events import Compacted, Replaced
from agentcli.agent.renames import asked_for, rename, renamed, words_of
from agentcli.agent.state import AgentState
from agentcli.agent.stop import Stopped
from agentcli.errors import EnvironmentOpError, ModelError, ProviderError
from agentcli.llm.client import ChatRequest, ChatResponse, LLMClient
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult, Usage
from agentcli.text import BETWEEN_OPTIONS
from agentcli.tools.base import DECLINE, MATCHES, PATTERN, ToolContext, ToolKind
from agentcli.tools.registry import Registry

PASS = "second thoughts"
"""The name under which something is left out."""

_Search = tuple[str, str]
"""The tool and the pattern."""

_MISREAD = "it rests on nothing, so the request was probably misread"
_MISCOPIED = "it brings in a name that is not in the message"
_MOST_WORDS = 200
_MOST_LINES = 1000
_PLACES = (
    r"\b(?:def|class)\s+({})\b",
    r"^\s*(?:self\.)?({})\s*(?::.*)?=[^=]",
    r"[(,*]\s*({})\s*[,:=)]",
)
"""Where a line of Python gives a name to something."""


@dataclass(frozen=True)
class Second:
    """What the model does instead, and why; if ``why`` is empty, its answer stands.

    ``forget``: what it did before is left out from now on. ``spent`` is what asking has cost if the
    first answer stands; otherwise the response has its own usage.
    """

    response: ChatResponse
    why: str = ""
    forget: bool = False
    spent: Usage = field(default_factory=Usage)


Ask = Callable[[LLMClient, ChatRequest, AgentState], Awaitable[ChatResponse]]
"""Gets a whole answer within the budgets; raises ``Stopped`` if there is no room for one."""


@dataclass(frozen=True)
class SecondThoughts:
    """Second thoughts about answers of a model that uses ``tools``."""

    tools: Registry
    context: ToolContext
    ask: Ask

    @property
    def _called(self) -> Called:
        return Called(self.tools)

    async def about(
        self, client: LLMClient, request: ChatRequest, state: AgentState, response: ChatResponse
    ) -> Second:
        """Return what the model does instead of ``response``."""
        if not client.info.reconsiders or not _only_task(state):
            return Second(response)
        state = replace(state, usage=state.usage + response.usage)
        try:
            if response.message.calls:
                return await self._with_given_names(client, request, state, response)
            return await self._instead_of_nothing(client, request, state, response)
        except (ProviderError, ModelError, Stopped):
            return Second(response)  # it is good enough

    async def _instead_of_nothing(
        self, client: LLMClient, request: ChatRequest, state: AgentState, response: ChatResponse
    ) -> Second:
        """To decline, or to search for something else, if all that was done led to nothing."""
        since = since_asked(state.history)
        asked = _until(request.messages, since[0]) if self._led_to_nothing(since) else None
        if asked is None:
            return Second(response)
        again = replace(request, messages=asked, reconsidered=True)
        searched = self._searched(since)
        if searched and (names := await self._names(since[0].text)):
            again = _searching(again, searched, names)
        second = await self.ask(client, again, state)
        calls = second.message.calls
        if [call.name for call in calls] == [DECLINE]:
            return Second(second, _MISREAD)
        if again.tools != request.tools and calls and searched.isdisjoint(map(_search, calls)):
            return Second(second, _MISREAD, forget=True)
        return Second(response, spent=second.usage)

    async def _with_given_names(
        self, client: LLMClient, request: ChatRequest, state: AgentState, response: ChatResponse
    ) -> Second:
        """The rename that the message asks for, if this edit is another one; no test has failed."""
        since = since_asked(state.history)
        edit, given = EditCalls(self.tools).of(response), words_of(since[0].text)
        spec = self.tools.spec(edit.name) if edit is not None else None
        if edit is None or spec is None or len(spec.variant_of) != 1 or self._has_failed(since):
            return Second(response)
        [(new, old)] = spec.variant_of.items()
        begun = self._begun(since, edit.name, old, new)
        found = begun or renamed(edit, old, new)
        if found is None or found[0] not in given:
            return Second(response)
        name, others = found[0], [found[1]] if begun else list(given)

        def meant(text: str) -> list[str]:
            lines = [rename(text, name, other) for other in others]
            return [line for line in lines if line != text]

        def is_meant(call: ToolCall | None) -> bool:
            written = arguments_of(call) if call is not None else {}
            return str(written.get(new)) in meant(str(written.get(old)))

        if is_meant(edit) or not meant(str(arguments_of(edit).get(old))):
            return Second(response)

        async def text_of(tool: str, written: Mapping[str, Any]) -> str | None:
            if tool == edit.name and old in written and new not in written:
                return BETWEEN_OPTIONS.join(meant(str(written[old])))
            return await request.argument_text(tool, written) if request.argument_text else None

        again = _limited(request, {edit.name}, new)
        second = await self.ask(client, replace(again, argument_text=text_of), state)
        if is_meant(EditCalls(self.tools).of(second)):
            return Second(second, _MISCOPIED)
        return Second(response, spent=second.usage)

    def _begun(
        self, messages: Sequence[Message], tool: str, old: str, new: str
    ) -> tuple[str, str] | None:
        """The name that an earlier edit has exchanged for another word of the message, and that."""
        first = None
        for call, result in self._called.results(messages, ToolKind.EDIT):
            if call is not None and call.name == tool and result.outcome is Outcome.OK:
                first = asked_for(call, old, new, messages[0].text) or first
        return first

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
            (PASS,),
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
        places = [place.format(either) for place in _PLACES]
        try:
            lines = await self.context.environment.grep(
                "|".join(places), glob="*.py", limit=_MOST_LINES
            )
        except EnvironmentOpError:
            return []
        found = {
            name for line in lines for place in places for name in re.findall(place, line.text)
        }
        return [word for word in words if word in found]


def _only_task(state: AgentState) -> bool:
    """Whether nothing was said after the task, such as a report of failed checks."""
    turn = next((mark for mark in reversed(state.marks) if mark.turn), AgentState())
    said = tuple(state.history)[len(turn.history) :]
    return sum(message.role is Role.USER for message in said) == 1


def _search(call: ToolCall) -> _Search:
    return call.name, str(arguments_of(call).get(PATTERN, ""))


def _searching(request: ChatRequest, searched: Set[_Search], names: Sequence[str]) -> ChatRequest:
    """Limit the same tools to the same searches for these names instead."""
    tools = {tool for tool, _ in searched}
    made = {tool: BETWEEN_OPTIONS.join(_instead(tool, searched, names)) for tool in tools}
    left = {tool: options for tool, options in made.items() if options}
    if not left:
        return request

    async def text_of(tool: str, arguments: Mapping[str, Any]) -> str | None:
        if tool in left and PATTERN not in arguments:
            return left[tool]
        return await request.argument_text(tool, arguments) if request.argument_text else None

    return replace(_limited(request, left.keys(), PATTERN), argument_text=text_of)


def _instead(tool: str, searched: Set[_Search], names: Sequence[str]) -> Iterator[str]:
    for pattern in sorted(pattern for other, pattern in searched if other == tool):
        *_, word = words_of(pattern)
        for name in names:
            new = rename(pattern, word, name)
            if (tool, new) not in searched:
                yield new


def _limited(request: ChatRequest, tools: Set[str], argument: str) -> ChatRequest:
    """Have an argument of these tools be one of the options that ``argument_text`` returns."""
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
