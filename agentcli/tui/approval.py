"""The inline approval question before a tool call, answered with one key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalGroup, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from agentcli.questions import GUARD_S, answered_by, asked, choices, diff_of, proposed
from agentcli.text import clip, escape, plain_output
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tui.diff import Diff
from agentcli.tui.lines import NOTHING

_OUTPUT_LINES = 40
_GAP = "   "
_WIDTH = 300
HOLD_S, LONG_HOLD_S = 0.2, 0.6
"""How long an answer is held: if another key follows meanwhile, it was the first letter of a
message. An answer that outlives the call is held longer: slow typing must give no rule away.
So is a new mode before it answers."""


class _Held(NamedTuple):
    """An answer that counts if no other key follows, and the timer that will give it."""

    key: events.Key
    answer: Answer
    timer: Timer


class ApprovalPanel(VerticalGroup, can_focus=True):
    """See the module docstring. ``reply`` waits for the answer."""

    @dataclass
    class Strayed(Message):
        """Input meant for the prompt; with ``writing``, the input after it as well."""

        event: events.Key | events.Paste
        writing: bool = False

    def __init__(self, approval: Approval) -> None:
        super().__init__(id="approval")
        self.approval = approval
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._quiet_since = time.monotonic()
        self._writing = False  # the user types a message; the prompt may not have the focus yet
        self._held: _Held | None = None
        self._mode_timer: Timer | None = None
        self._body = VerticalScroll(classes="approval-body", can_focus=False)

    def compose(self) -> ComposeResult:
        """The question, the proposed change, and the keys, which are always visible."""
        approval = self.approval
        yield Static(asked(approval), classes="approval-title")
        with self._body:
            yield Static(_call(approval), classes="approval-call")
            if diff := diff_of(approval):
                yield Diff(diff, titles=approval.effect is not None)
            elif approval.effect is not None:
                yield Static("It changed no file.", classes="approval-output")
            if approval.output is not None:
                yield Static(_output(approval.output), classes="approval-output")
        yield Keys(approval)

    def on_mount(self) -> None:
        """Begin the guard time: keys pressed in the first moment go to the prompt."""
        self.appeared()

    def on_resize(self) -> None:
        """Show a hint if the body is too long to be fully visible."""
        self.call_after_refresh(self._show_scroll_hint)

    def _show_scroll_hint(self) -> None:
        self.border_subtitle = "↑↓ scrolls" if self._body.max_scroll_y > 0 else ""

    def appeared(self) -> None:
        """Restart the guard time during which keys are not answers; keys after it are."""
        self._quiet_since = time.monotonic()
        self._writing = False

    @property
    def listens(self) -> bool:
        """Whether the guard time is over, so that a key is an answer."""
        return time.monotonic() - self._quiet_since >= GUARD_S

    async def reply(self) -> Reply:
        """The user's answer."""
        return await self._reply

    def answer(self, answer: Answer, reason: str = "") -> None:
        """Give the answer; only the first one counts."""
        if not self._reply.done():
            self._reply.set_result(Reply(answer, reason))

    def mode_changed(self, allows: Callable[[Approval], bool]) -> None:
        """Answer yes if the call needs no question in the new mode.

        Only if the mode is kept for a moment: on the way to ``plan``, Shift+Tab passes ``auto``.
        """

        def settle() -> None:
            if allows(self.approval):
                self.answer(Answer.ONCE)

        if self._mode_timer is not None:
            self._mode_timer.stop()
        self._mode_timer = self.set_timer(LONG_HOLD_S, settle)

    def on_key(self, event: events.Key) -> None:
        """Take one key as the answer, unless it came before the question could be read."""
        if event.key in ("up", "down"):
            event.stop()
            by = -1 if event.key == "up" else 1
            self._body.scroll_relative(y=by, animate=False)
            return
        if not event.is_printable and event.key not in ("enter", "backspace"):
            self._release()
            if event.key == "escape" and not self.listens:
                event.stop()  # it interrupts the turn, once the question could be read
            return
        event.stop()
        if self._writing:
            self.post_message(self.Strayed(event, writing=True))
        elif not self.listens:
            # As long as the user keeps typing, all keys belong to the prompt.
            self._quiet_since = time.monotonic()
            self.post_message(self.Strayed(event))
        elif self._held is not None and event.key == "enter":
            self._settle()
        elif self._held is None and (answer := answered_by(event.key, self.approval)):
            long = answer in (Answer.SESSION, Answer.PREFIX)
            timer = self.set_timer(LONG_HOLD_S if long else HOLD_S, self._settle)
            self._held = _Held(event, answer, timer)
        elif self._held is not None or event.is_printable:
            self._write(event)

    def on_paste(self, event: events.Paste) -> None:
        """Pass the paste on to the prompt: it is never an answer."""
        event.stop()
        self._write(event)

    def _settle(self) -> None:
        """Give the held answer; what follows is for the prompt."""
        if self._held is not None:
            self.answer(self._held.answer)
            self._release()
            self._writing = True

    def _release(self) -> list[events.Key]:
        """Let go of the held answer; return its key, if there is one."""
        held, self._held = self._held, None
        if held is None:
            return []
        held.timer.stop()
        return [held.key]

    def _write(self, event: events.Key | events.Paste) -> None:
        """Pass this on to the prompt, after the held key, and all that follows."""
        self._writing = True
        for one in (*self._release(), event):
            self.post_message(self.Strayed(one, writing=True))

    def turn_page(self, direction: int) -> bool:
        """Scroll by a page; False if the whole body is visible."""
        body = self._body
        body.scroll_relative(y=direction * max(1, body.size.height - 1), animate=False)
        return body.max_scroll_y > 0


def _call(approval: Approval) -> Content:
    first, *more = proposed(approval)
    mark = "$ " if first.startswith("$ ") else ""
    head = Content.assemble((mark, "$primary"), (first[len(mark) :], "" if mark else "bold"))
    return Content("\n").join([head, *map(Content, more)])


def _output(output: str) -> Content:
    lines = escape(plain_output(output)).rstrip("\n").split("\n")
    shown = [clip(line, _WIDTH) for line in lines[-_OUTPUT_LINES:]]
    if len(lines) > len(shown):
        shown.insert(0, f"… {len(lines) - len(shown)} earlier lines")
    return Content("\n".join(shown))


class Keys(Static):
    """The keys and their meanings; line breaks come only between them."""

    def __init__(self, approval: Approval) -> None:
        super().__init__(classes="approval-keys")
        self._choices = choices(approval)

    def on_resize(self, event: events.Resize) -> None:
        """Fill the lines again for the new width."""
        self.update(self._filled(event.size.width))

    def _filled(self, width: int) -> Content:
        lines = [NOTHING]
        for choice in self._choices:
            one = Content.assemble((choice.key, "bold $warning"), f" {choice.words}")
            if lines[-1].cell_length + len(_GAP) + one.cell_length > width and lines[-1].plain:
                lines.append(NOTHING)
            lines[-1] = Content.assemble(lines[-1], _GAP if lines[-1].plain else "", one)
        return Content("\n").join(lines)
