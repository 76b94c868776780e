"""What an editor is told of a run: events as session updates of the Agent Client Protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from acp import (
    text_block,
    tool_content,
    tool_diff_content,
    update_agent_message_text,
    update_agent_thought_text,
    update_user_message_text,
)
from acp.helpers import (
    SessionUpdate,
    start_tool_call,
    update_current_mode,
    update_tool_call,
)
from acp.schema import ToolCallLocation, ToolKind
from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from agentcli.agent.events import (
    CheckFinished,
    Delta,
    Event,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    StreamReset,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
)
from agentcli.llm.client import TextDelta, ThinkingDelta
from agentcli.messages import Message, Outcome, Role, ToolCall, ToolResult
from agentcli.tools import base
from agentcli.wording import check_line, describe_call

_KINDS: dict[str, ToolKind] = {
    base.ToolKind.READ: "read",
    base.ToolKind.SEARCH: "search",
    base.ToolKind.PLAN: "think",
    base.ToolKind.EDIT: "edit",
    base.ToolKind.CHECK: "execute",
    base.ToolKind.RUN: "execute",
}


class Updates:
    """Turns events into updates, in order. ``root`` is the workspace, for absolute paths."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._output: dict[str, str] = {}

    def of(self, event: Event) -> Iterator[SessionUpdate]:
        """The updates of one event; none for what an editor need not know."""
        match event:
            case Delta(delta=TextDelta(text)) if text:
                yield update_agent_message_text(text)
            case Delta(delta=ThinkingDelta(text)) if text:
                yield update_agent_thought_text(text)
            case StreamReset(reason=reason):
                # What was streamed cannot be taken back; the protocol has no word for it.
                yield update_agent_message_text(f"\n\n[{reason}; the answer begins anew]\n\n")
            case ToolStarted(call=call, tool_kind=kind):
                yield self.started(call, kind)
            case ToolProgress(call_id=call_id, data=data):
                text = self._output.get(call_id, "") + data.decode("utf-8", "replace")
                self._output[call_id] = text[-20_000:]
                shown = tool_content(text_block(self._output[call_id]))
                yield update_tool_call(call_id, status="in_progress", content=[shown])
            case ToolFinished(result=result):
                self._output.pop(result.call_id, None)
                yield self.finished(result)
            case ModeChanged(mode=mode):
                yield update_current_mode(mode)
            case CheckFinished():
                yield update_agent_message_text(f"\n\n{check_line(event)}\n")
            case Warned(text=text):
                yield update_agent_message_text(f"\n\n[{text}]\n")

    def of_past(self, event: Event) -> Iterator[SessionUpdate]:
        """The updates of a recorded event, for an editor that loads a session."""
        match event:
            case MessageAdded(message=Message(role=Role.USER) as message) if message.text:
                yield update_user_message_text(message.text)
            case ModelAnswered(message=message):
                if message.text:
                    yield update_agent_message_text(message.text)
            case ToolStarted() | ToolFinished():
                yield from self.of(event)

    def started(self, call: ToolCall, kind: str) -> SessionUpdate:
        """A call that has begun, or waits for a permission."""
        return start_tool_call(
            call.id,
            describe_call(call),
            kind=_KINDS.get(kind, "other"),
            status="in_progress",
            raw_input=_arguments(call),
        )

    def finished(self, result: ToolResult) -> SessionUpdate:
        """A call that has its result, with its diffs where it has changed files."""
        content = [
            tool_diff_content(os.path.join(self._root, path), new, old)
            for path, old, new in changed_pieces(result.diff)
        ]
        return update_tool_call(
            result.call_id,
            status="completed" if result.outcome is Outcome.OK else "failed",
            content=content or [tool_content(text_block(result.content))],
            locations=[ToolCallLocation(path=os.path.join(self._root, p)) for p in result.paths],
            raw_output=result.content,
        )


def changed_pieces(diff: str) -> Iterator[tuple[str, str | None, str]]:
    """(path, old text, new text) of each hunk of a unified diff; old is None for a new file."""
    if not diff:
        return
    try:
        patch = PatchSet(diff)
    except UnidiffParseError:
        return
    for file in patch:
        for hunk in file:
            old = None if file.is_added_file else "".join(line[1:] for line in hunk.source)
            yield file.path, old, "".join(line[1:] for line in hunk.target)


def _arguments(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments
