"""The prompt: the widget in which the user types messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

from agentcli.text import plain_output
from agentcli.tui.completion import Completion
from agentcli.tui.history import PromptHistory
from agentcli.tui.screen import ChatScreen
from agentcli.tui.vim import Text, Vim, Wish, difference_of
from agentcli.tui.vim_motions import line_start

_UNDO = ("ctrl+underscore", "ctrl+slash", "alt+z")
_NEWLINE = ("ctrl+j", "shift+enter", "alt+enter")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tab and newline."""


class Prompt(TextArea):
    """A multi-line input. Enter sends, Tab queues, Up and Down walk through the history.

    Backslash and Enter also insert a newline, for terminals without a key for it.
    """

    @dataclass
    class Submitted(Message):
        """The user sent ``text``; with ``queue``, to be read after the current turn."""

        text: str
        queue: bool = False

    @dataclass
    class Quit(Message):
        """Ctrl+D was pressed on an empty prompt."""

    @dataclass
    class ModeChanged(Message):
        """Vim's insert mode has begun or ended."""

        inserting: bool

    def __init__(
        self,
        history: PromptHistory,
        completion: Completion,
        *,
        queues: Callable[[], bool],
        take_back: Callable[[], str | None],
        vim: bool = False,
    ) -> None:
        """``queues`` returns whether a turn is running after which a message can be queued.

        ``take_back`` removes and returns the last message that was not read yet, if any.
        """
        super().__init__(
            id="prompt",
            compact=True,
            highlight_cursor_line=False,
            placeholder="Ask, or / for commands, @ for files, ! for the shell",
        )
        self.cursor_blink = False  # a blinking cursor wakes the processor while idle
        self.earlier = history
        self.queues = queues
        self.take_back = take_back
        self.completion = completion
        self._vim = Vim() if vim else None
        self._styled: object = None  # the theme to which the style sheet was last applied

    def notify_style_update(self) -> None:
        """Look the colours up again: they may have changed."""
        super().notify_style_update()
        self._styled = None

    def render_lines(self, crop: Region) -> list[Strip]:
        """Render as TextArea does, but without looking the colours up again for every key."""
        if self._styled is self._theme:
            return super(TextArea, self).render_lines(crop)
        self._styled = self._theme
        return super().render_lines(crop)

    def set_text(self, text: str) -> None:
        """Replace the text and move the cursor to its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def add_text(self, text: str) -> None:
        """Insert unsent text before the current text."""
        self.set_text(f"{text}\n{self.text}" if self.text.strip() else text)

    @property
    def before_cursor(self) -> str:
        """The current line up to the cursor; empty during a selection or in vim's normal mode."""
        if not self.selection.is_empty or not self.inserts:
            return ""
        row, column = self.cursor_location
        return self.document.get_line(row)[:column]

    @property
    def inserts(self) -> bool:
        """Whether keys insert text: always, except in vim's normal mode."""
        return self._vim is None or self._vim.inserting

    def submit(self, *, queue: bool = False) -> None:
        """Send the text unless it is blank."""
        text = self.text.strip()
        if text:
            self.earlier.add(text)
            self.clear()
            self.begin_inserting()
            self.post_message(self.Submitted(text, queue))

    def begin_inserting(self) -> None:
        """Leave vim's normal mode."""
        if self._vim is not None:
            self._vim.insert()
            self.post_message(self.ModeChanged(True))

    async def _on_key(self, event: events.Key) -> None:
        if self._take(event.key) or self._take_vim(event):
            event.stop()
            event.prevent_default()
            return
        self.earlier.leave()
        if (action := self._action_of(event)) is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)
        else:
            await super()._on_key(event)
        if isinstance(self.screen, ChatScreen):
            self.screen.show_now(self)

    def _action_of(self, event: events.Key) -> str | None:
        """The action of an editing key, such as Backspace.

        Textual runs the actions of keys only after they have gone up to the app. Letters that came
        in the same read would overtake them.
        """
        if event.is_printable:
            return None
        active = self.screen.active_bindings.get(event.key)
        if active is None or active.node is not self or not active.enabled:
            return None
        return active.binding.action

    def redo_of_vim(self) -> bool:
        """Handle Ctrl+R in vim's normal mode; False in any other mode."""
        if self._vim is None or self._vim.inserting:
            return False
        self._show(self._vim.press("ctrl+r", self._now()))
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        """Clean the pasted text; the TextArea's own handler then inserts it."""
        text = plain_output(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        event.text = _CONTROL.sub("", text)

    def _take(self, key: str) -> bool:
        """Handle one of the prompt's own keys; False if it is none."""
        if self.completion.is_open and not self.completion.fits(self.before_cursor):
            self.completion.close()
            if key in ("tab", "escape"):  # meant for the list, which keys of one read overtook
                return True
        if self.completion.is_open and self._complete(key):
            return True
        if key in _NEWLINE:
            self.insert("\n")
        elif key in _UNDO:  # Ctrl+Z is the shell's
            self.undo()
        elif key == "enter":
            self._enter()
        elif key == "tab":
            if self.queues():  # otherwise Tab was meant to complete
                self.submit(queue=True)
        elif key == "ctrl+d" and not self.text:
            self.post_message(self.Quit())
        elif key == "up" and not self.text and (waiting := self.take_back()) is not None:
            self.set_text(waiting)
        elif key == "up" and self.cursor_at_first_line:
            return self._replace(self.earlier.earlier(self.text))
        elif key == "down" and self.cursor_at_last_line:
            return self._replace(self.earlier.later())
        else:
            return False
        return True

    def _take_vim(self, event: events.Key) -> bool:
        """Handle a key with vim's bindings; False if vim does not use it."""
        vim = self._vim
        if vim is None:
            return False
        before = vim.inserting
        if event.key == "escape":
            if vim.inserting:
                self._show(vim.leave_insert(self._now()))
            elif not vim.cancel():
                return False  # nothing to leave: the app handles Escape
        elif vim.inserting:
            return False
        else:
            key = event.character if event.is_printable and event.character else event.key
            found = vim.press(key, self._now())
            if found is None:
                return event.is_printable
            self._show(found)
        if vim.inserting != before:
            self.post_message(self.ModeChanged(vim.inserting))
        return True

    def _now(self) -> Text:
        row, column = self.cursor_location
        return Text(self.text, sum(len(line) + 1 for line in self.document.lines[:row]) + column)

    def _show(self, then: Text | Wish | None) -> None:
        """Apply vim's result, replacing only the part of the text that differs."""
        match then:
            case Wish.EARLIER:
                self._replace(self.earlier.earlier(self.text))
            case Wish.LATER:
                self._replace(self.earlier.later())
            case Text(text, at):
                before = self.text
                if difference := difference_of(before, text):
                    start, end, put = difference
                    self.replace(put, _place(before, start), _place(before, end))
                self.move_cursor(_place(text, at))

    def _enter(self) -> None:
        if self.before_cursor.endswith("\\"):
            self.action_delete_left()
            self.insert("\n")
        else:
            self.submit()

    def _replace(self, text: str | None) -> bool:
        if text is None:
            return False
        self.set_text(text)
        return True

    def _complete(self, key: str) -> bool:
        completion = self.completion
        if key in ("up", "ctrl+p"):
            completion.move(-1)
        elif key in ("down", "ctrl+n"):
            completion.move(1)
        elif key == "escape":
            completion.close()
        elif key in ("tab", "enter"):
            chosen, typed = completion.chosen, completion.typed
            whole = self.before_cursor.endswith(chosen.text) and key == "enter"
            completion.close()
            if whole:
                return False  # fully typed: Enter sends it
            row, column = self.cursor_location
            start = (row, column - typed)
            self.replace(chosen.text + chosen.after, start, (row, column))
            if key == "enter" and chosen.send:
                self.submit()
        else:
            return False
        return True


def _place(text: str, at: int) -> tuple[int, int]:
    """The row and column of an offset."""
    return text.count("\n", 0, at), at - line_start(text, at)
