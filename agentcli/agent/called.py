"""What was called in a session: the results by kind of tool, and the last run of the tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agentcli.agent.trying import UNCOUNTED, failures
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult
from agentcli.tools.base import ToolKind
from agentcli.tools.registry import Registry


class Called:
    """Looks up calls of ``tools``."""

    def __init__(self, tools: Registry) -> None:
        self._tools = tools

    def kind(self, tool: str) -> ToolKind:
        """The kind of a tool; of one that is unknown, the kind that may do anything."""
        spec = self._tools.spec(tool)
        return ToolKind.RUN if spec is None else spec.kind

    def results(
        self, messages: Iterable[Message], kind: ToolKind | None = None
    ) -> Iterator[tuple[ToolCall | None, ToolResult]]:
        """The calls of this kind of tool (None: of all) with their results, the last one first.

        The call is None if it is not among ``messages``.
        """
        said = tuple(messages)
        calls = {call.id: call for message in said for call in message.calls}
        for message in reversed(said):
            for part in reversed(message.parts):
                if isinstance(part, ToolResult) and kind in (None, self.kind(part.name)):
                    yield calls.get(part.call_id), part

    def changing(self, messages: Iterable[Message]) -> list[ToolKind]:
        """The kinds of the calls that may have changed the workspace, in order."""
        kinds = [self.kind(result.name) for _, result in self.results(messages)]
        return [kind for kind in reversed(kinds) if kind.changes_files]

    def last_check(self, messages: Iterable[Message]) -> tuple[ToolCall | None, int | None]:
        """The last check call and how many tests failed in it.

        If no check has run yet: a call of the only check tool, and None. If that cannot be called
        without arguments, or is not the only one: None and None.
        """
        for call, result in self.results(messages, ToolKind.CHECK):
            if call is not None:
                left = failures(result)
                broken = left is None and result.outcome is Outcome.FAILED
                return call, UNCOUNTED if broken else left or 0
        checks = [spec for spec in self._tools.specs if spec.kind is ToolKind.CHECK]
        if len(checks) != 1 or checks[0].parameters.get("required"):
            return None, None
        return ToolCall("search", checks[0].name), None


def since_asked(messages: Iterable[Message]) -> Sequence[Message]:
    """The messages since the user's last one, with it; all if the user has said nothing."""
    said = tuple(messages)
    asked = [i for i, message in enumerate(said) if message.role is Role.USER]
    return said[asked[-1] if asked else 0 :]
