"""The question before a tool acts: inline, answered with one key."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalGroup
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from agentcli.text import clip, escape, plain_output
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolKind
from agentcli.tui.diff import Diff
from agentcli.wording import call_lines

GUARD_S = 0.3
"""A key that comes sooner was meant for the prompt: it was pressed before the question was read."""
_OUTPUT_LINES = 12
_WIDTH = 300


class ApprovalPanel(VerticalGroup, can_focus=True):
    """See the module. ``reply`` waits for the answer."""

    @dataclass
    class Strayed(Message):
        """A key that was meant for the prompt."""

        key: events.Key

    def __init__(self, approval: Approval) -> None:
        super().__init__(id="approval")
        self.approval = approval
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._quiet_since = time.monotonic()
        self._keys = Static(_keys(approval), classes="approval-keys")

    def compose(self) -> ComposeResult:
        """What is asked, what it would change, and the keys."""
        approval = self.approval
        yield Static(_title(approval), classes="approval-title")
        yield Static(_commands(approval), classes="approval-call")
        if diff := _diff(approval):
            yield Diff(diff, titles=approval.effect is not None)
        if approval.output is not None:
            yield Static(_output(approval.output), classes="approval-output")
        yield self._keys

    def on_mount(self) -> None:
        """Take the keys; those of the first moment are passed on."""
        self.appeared()
        self.focus()

    def appeared(self) -> None:
        """From now on a moment must pass before a key answers."""
        self._quiet_since = time.monotonic()

    @property
    def listens(self) -> bool:
        """Whether a key answers by now."""
        return time.monotonic() - self._quiet_since >= GUARD_S

    async def reply(self) -> Reply:
        """The user's answer."""
        return await self._reply

    def answer(self, answer: Answer, reason: str = "") -> None:
        """Answer in the user's name, once."""
        if not self._reply.done():
            self._reply.set_result(Reply(answer, reason))

    def on_key(self, event: events.Key) -> None:
        """One key answers, but never one that was pressed before the question could be read."""
        typing = not self.listens
        if typing and (event.is_printable or event.key in ("enter", "backspace")):
            # While the user goes on typing, all of it belongs to the prompt.
            self.appeared()
            event.stop()
            self.post_message(self.Strayed(event))
            return
        answer = _ANSWERS.get(event.key)
        if answer is None or typing or not _possible(answer, self.approval):
            return
        event.stop()
        self.answer(answer)


_ANSWERS = {
    "y": Answer.ONCE,
    "a": Answer.SESSION,
    "p": Answer.PREFIX,
    "n": Answer.NO,
    "escape": Answer.NO,
    "c": Answer.COPY,
}


def _possible(answer: Answer, approval: Approval) -> bool:
    if approval.effect is not None:
        return answer in (Answer.ONCE, Answer.NO)
    if answer is Answer.PREFIX:
        return approval.rule is not None
    return answer is not Answer.COPY or approval.can_copy


def _title(approval: Approval) -> str:
    if approval.effect is not None:
        return "It ran on a copy. Bring its changes into the workspace?"
    match approval.spec.kind:
        case ToolKind.EDIT:
            return "Make this edit?"
        case ToolKind.CHECK:
            return "Run this check?"
        case _:
            return "Run this?"


def _commands(approval: Approval) -> Content:
    if approval.segments:
        lines = [Content.assemble(("$ ", "$primary"), escape(s)) for s in approval.segments]
        return Content("\n").join(lines)
    first, *code = call_lines(approval.call, _WIDTH)
    return Content("\n").join([Content.styled(first, "bold"), *map(Content, code)])


def _diff(approval: Approval) -> str:
    """What it changed on a copy, or what an edit would change."""
    return approval.diff if approval.effect is None else approval.effect


def _output(output: str) -> Content:
    lines = escape(plain_output(output)).rstrip("\n").split("\n")
    shown = [clip(line, _WIDTH) for line in lines[-_OUTPUT_LINES:]]
    if len(lines) > len(shown):
        shown.insert(0, f"… {len(lines) - len(shown)} earlier lines")
    return Content("\n".join(shown))


def _keys(approval: Approval) -> Content:
    if approval.effect is not None:
        keys = [("y", "bring them in"), ("n", "drop them")]
    else:
        keys = [("y", "once"), ("a", "for this session")]
        if approval.rule is not None:
            keys.append(("p", f"always: {clip(escape(str(approval.rule)), 60)}"))
        keys.append(("n", "no"))
        if approval.can_copy:
            keys.append(("c", "try on a copy first"))
    parts = [Content.assemble((key, "bold $warning"), f" {words}") for key, words in keys]
    return Content("   ").join(parts)
