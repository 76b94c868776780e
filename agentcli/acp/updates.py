"""Turns the events of a run into session updates of the Agent Client Protocol."""

from __future__ import annotations

import base64
import codecs
import functools
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from acp import (
    image_block,
    plan_entry,
    text_block,
    tool_content,
    tool_diff_content,
    update_agent_message_text,
    update_agent_thought_text,
    update_plan,
    update_user_message,
    update_user_message_text,
)
from acp.helpers import (
    SessionUpdate,
    start_tool_call,
    update_current_mode,
    update_tool_call,
)
from acp.schema import (
    FileEditToolCallContent,
    ImageContentBlock,
    PlanEntryStatus,
    SessionInfoUpdate,
    ToolCallLocation,
    ToolKind,
)
from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from agentcli.acp.content import fenced
from agentcli.agent.events import (
    CheckFinished,
    Delta,
    Event,
    MessageAdded,
    ModeChanged,
    ModelAnswered,
    StreamReset,
    TaskGiven,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Warned,
)
from agentcli.llm.client import TextDelta, ThinkingDelta
from agentcli.messages import Image, Message, Outcome, Role, ToolCall, ToolResult
from agentcli.text import one_line, plain_output
from agentcli.tools import base
from agentcli.tools.approval import Approval
from agentcli.tools.todo import TODO
from agentcli.wording import check_line, describe_call

_KINDS: dict[str, ToolKind] = {
    base.ToolKind.READ: "read",
    base.ToolKind.SEARCH: "search",
    base.ToolKind.PLAN: "think",
    base.ToolKind.EDIT: "edit",
    base.ToolKind.CHECK: "execute",
    base.ToolKind.RUN: "execute",
}
_FETCH = "fetch"
_STATES: Mapping[str, PlanEntryStatus] = {"done": "completed"}
"""States of the todo tool that have another name in the protocol."""
_MOST_PROGRESS = 20_000
_DECODER = codecs.getincrementaldecoder("utf-8")


class _Output:
    """What a running tool has printed; ``news``: the editor does not know all of it yet."""

    def __init__(self) -> None:
        self.text = ""
        self.news = False
        self._decoders: dict[str, codecs.IncrementalDecoder] = defaultdict(
            functools.partial(_DECODER, "replace")
        )

    def add(self, stream: str, data: bytes) -> None:
        self.text = (self.text + self._decoders[stream].decode(data))[-_MOST_PROGRESS:]
        self.news = True


class Updates:
    """Turns events into updates, in order.

    ``root`` is the workspace, for absolute paths. ``titled`` means that the session already has a
    title, which is its first task.
    """

    def __init__(self, root: str, *, titled: bool) -> None:
        self._root = root
        self._titled = titled
        self._output: dict[str, _Output] = {}

    def of(self, event: Event) -> Iterator[SessionUpdate]:
        """The updates for one event, if any."""
        match event:
            case TaskGiven(text=text) if text and not self._titled:
                self._titled = True
                yield SessionInfoUpdate(session_update="session_info_update", title=title_of(text))
            case Delta(delta=TextDelta(text)) if text:
                yield update_agent_message_text(text)
            case Delta(delta=ThinkingDelta(text)) if text:
                yield update_agent_thought_text(text)
            case StreamReset(reason=reason):
                # The protocol has no way to take back text that was already streamed.
                yield update_agent_message_text(f"\n\n[{reason}; the answer starts over]\n\n")
            case ToolStarted(call=call, tool_kind=kind):
                yield self.started(call, kind)
            case ToolProgress(call_id=call_id, stream=stream, data=data):
                self._output.setdefault(call_id, _Output()).add(stream, data)
            case ToolFinished(result=result):
                self._output.pop(result.call_id, None)
                yield self.finished(result)
                if (items := result.data.get(TODO)) is not None:
                    yield update_plan(
                        plan_entry(text, status=_STATES.get(state, state)) for text, state in items
                    )
                elif result.outcome is Outcome.OK and (steps := result.data.get(base.PLAN)):
                    yield update_plan(map(plan_entry, steps))
            case ModeChanged(mode=mode):
                yield update_current_mode(mode)
            case CheckFinished():
                yield update_agent_message_text(f"\n\n{check_line(event)}\n")
            case Warned(text=text):
                yield update_agent_message_text(f"\n\n[{text}]\n")

    def output(self) -> Iterator[SessionUpdate]:
        """The updates for what running tools have printed since the last call.

        An update repeats the whole output so far, so they should not follow every line.
        """
        for call_id in list(self._output):
            output = self._output.get(call_id)  # the call may have ended since the last update
            if output is not None and output.news:
                output.news = False
                shown = _shown(output.text)
                yield update_tool_call(call_id, status="in_progress", content=[shown])

    def of_past(self, event: Event) -> Iterator[SessionUpdate]:
        """The updates for a recorded event, for an editor that loads a session."""
        match event:
            case MessageAdded(message=Message(role=Role.USER) as message, own=False):
                if message.text:
                    yield update_user_message_text(message.text)
                for part in message.parts:
                    if isinstance(part, Image):
                        yield update_user_message(_image(part))
            case ModelAnswered(message=message):
                if message.text:
                    yield update_agent_message_text(message.text)
            case ToolStarted() | ToolFinished():
                yield from self.of(event)

    def started(self, call: ToolCall, kind: str) -> SessionUpdate:
        """The update for a call that has started."""
        arguments = _arguments(call)
        return start_tool_call(
            call.id,
            describe_call(call),
            kind=kind_of(call.name, kind),
            status="in_progress",
            raw_input=arguments,
            locations=self._locations(_named_file(arguments)),
        )

    def finished(self, result: ToolResult) -> SessionUpdate:
        """The update for a finished call: its diffs if it changed files, else its output.

        Images of the result follow.
        """
        is_markdown = result.name == _FETCH
        text = tool_content(text_block(result.content)) if is_markdown else _shown(result.content)
        output: list[Any] = self.diffs(result.diff) or [text]
        images = [tool_content(_image(image)) for image in result.images]
        return update_tool_call(
            result.call_id,
            status="completed" if result.outcome is Outcome.OK else "failed",
            content=[*output, *images],
            locations=self._locations([(path, None) for path in result.paths]),
            raw_output={"output": result.content},
        )

    def foreseen(self, approval: Approval) -> list[Any]:
        """What an edit would change, or what a check would run."""
        return [*self.diffs(approval.diff), *([_shown(approval.runs)] if approval.runs else [])]

    def diffs(self, diff: str) -> list[FileEditToolCallContent]:
        """A unified diff in the protocol's form, one entry for each hunk."""
        return [
            tool_diff_content(os.path.join(self._root, path), new, old)
            for path, old, new in changed_pieces(diff)
        ]

    def _locations(self, places: Iterable[tuple[str, int | None]]) -> list[ToolCallLocation]:
        return [
            ToolCallLocation(path=os.path.join(self._root, path), line=line)
            for path, line in places
        ]


def title_of(task: str) -> str:
    """The title of a session, made from its first task."""
    return one_line(task, 80)


def kind_of(name: str, kind: str) -> ToolKind:
    """The protocol's name for a tool's kind."""
    return "fetch" if name == _FETCH else _KINDS.get(kind, "other")


def changed_pieces(diff: str) -> Iterator[tuple[str, str | None, str]]:
    """(path, old text, new text) of each hunk of a unified diff; old is None in a new file."""
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


def _arguments(call: ToolCall) -> dict[str, Any]:
    """A call's arguments; an object in any case, as some editors accept nothing else."""
    try:
        found = json.loads(call.arguments)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def _named_file(arguments: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """The file in a call's arguments, and the line to start from."""
    if not isinstance(arguments.get("path"), str):
        return []
    start = arguments.get("start")
    return [(arguments["path"], start if type(start) is int and start >= 0 else None)]


def _shown(text: str) -> Any:
    """A tool's output, fenced so that it is not rendered as Markdown."""
    return tool_content(text_block(fenced(plain_output(text))))


def _image(image: Image) -> ImageContentBlock:
    return image_block(base64.b64encode(image.data).decode(), image.media_type)
