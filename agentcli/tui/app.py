"""The screen of ``agentcli chat``: composes the widgets and routes keys to them.

It never owns the agent's state: it receives events and sends the user's requests through the
``Conversation``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import events, on, work
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.driver import Driver
from textual.timer import Timer
from textual.widgets import Static, TextArea
from textual.worker import Worker, WorkerState

from agentcli.errors import AgentCLIError, UsageError
from agentcli.folders import log_file
from agentcli.text import escape
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.permissions import Mode
from agentcli.tui import decoding, pace
from agentcli.tui.actions import Actions
from agentcli.tui.approval import ApprovalPanel
from agentcli.tui.candidates import candidates, wants_files
from agentcli.tui.chat_session import ChatSession, Start
from agentcli.tui.chooser import Choice, Chooser
from agentcli.tui.commands import BUILTIN, Command, is_command, own_commands, prompts_of, split
from agentcli.tui.completion import Completion
from agentcli.tui.entries import Answered, Entry, Level, Said, Thought, Told
from agentcli.tui.files import FileIndex
from agentcli.tui.history import PromptHistory
from agentcli.tui.keys import KEYS
from agentcli.tui.options import Options
from agentcli.tui.progress import ProgressLine
from agentcli.tui.prompt import Prompt
from agentcli.tui.screen import ChatScreen
from agentcli.tui.standing import Standing
from agentcli.tui.status_line import StatusLine
from agentcli.tui.themes import THEMES
from agentcli.tui.transcript import Transcript
from agentcli.tui.waiting import Waiting

if TYPE_CHECKING:
    from agentcli.tui.conversation import Conversation

T = TypeVar("T")

_log = logging.getLogger("agentcli.tui")

MARK = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
NORMAL = "N"
"""Replaces ``MARK`` in vim's normal mode."""
_TWICE_S = 1.0
"""Two presses of a key within this time count as a double press."""
_LONG_TURN_S = 15.0
"""The bell rings at the end of turns longer than this."""


class ChatApp(App[int]):
    """See the module docstring."""

    CSS_PATH = "chat.tcss"
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = [(0, "-short"), (24, "-medium"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "clear_or_quit", "clear or interrupt, twice: quit", priority=True),
        Binding("ctrl+o", "expand", "fold and unfold output", priority=True),
        Binding("ctrl+r", "search_history", "earlier prompts", priority=True),
        Binding("ctrl+g", "edit_outside", "write in your editor", priority=True),
        Binding("shift+tab", "next_mode", "next mode", priority=True),
        Binding("ctrl+z", "suspend_process", "suspend", priority=True),
        Binding("ctrl+d", "leave", "quit if the prompt is empty"),
        Binding("escape", "escape", "interrupt, twice: rewind"),
        Binding("pageup", "scroll(-1)", "up", priority=True),
        Binding("pagedown", "scroll(1)", "down", priority=True),
        Binding("ctrl+end", "end", "to the end", priority=True),
    ]

    def __init__(self, options: Options, start: Start) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = options.theme
        self.options = options
        self.session = ChatSession(self, start, options.mode)
        self.files = FileIndex()
        self._asking = False
        self.keys: Sequence[tuple[str, str]] = KEYS
        self.commands: Sequence[Command] = (*BUILTIN, *own_commands(options.command_folders))
        self.transcript = Transcript()
        self.progress = ProgressLine()
        self.waiting = Waiting()
        self.status = StatusLine()
        self.completion = Completion()
        self.prompt = Prompt(
            PromptHistory(options.history),
            self.completion,
            queues=lambda: self.session.busy,
            take_back=lambda: self.session.take_back(),
            vim=options.vim,
        )
        self.actions = Actions(self)
        self.left_session: str | None = None  # set on leaving if anything was said in it
        self._pressed: dict[str, float] = {}
        self._hint_timer: Timer | None = None
        self._title = ""

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver for this terminal."""
        decoding.forgive()
        return super().get_driver_class()

    def get_default_screen(self) -> ChatScreen:
        """The app's only screen."""
        return ChatScreen()

    def compose(self) -> ComposeResult:
        """The widgets, from the transcript at the top to the status line."""
        yield self.transcript
        yield Vertical(id="panel")
        yield self.progress
        yield self.waiting
        yield self.completion
        with Horizontal(id="writing"):
            yield Static(MARK, id="mark")
            yield self.prompt
        yield self.status

    def on_mount(self) -> None:
        """Let the user type at once while the agent opens in the background."""
        pace.quicken()
        # Another program may have written to the terminal: redraw everything.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(repaint=True, layout=True))
        self.prompt.focus()
        self.show_standing()
        for notice in self.options.notices:
            self.tell(notice, Level.WARNING)
        if self.options.prompt:
            self.say(self.options.prompt, queue=False)
        self.call_after_refresh(self.open, self.options.session_id)
        if self.options.pick:
            self.act("resume")

    # -- the session -------------------------------------------------------------------------

    def open(self, session_id: str | None, *, model: str | None = None) -> None:
        """Replace the current session with an existing one, or with a new one."""
        self.session.open(session_id, model=model or self.options.model)

    @property
    def conversation(self) -> Conversation | None:
        """The open conversation, or None."""
        return self.session.conversation

    @property
    def standing(self) -> Standing:
        """What the status line shows of the session."""
        return self.session.standing

    @on(Worker.StateChanged)
    def _broken(self, event: Worker.StateChanged) -> None:
        """Report an internal error of a worker; the app and the user's text stay."""
        if event.state is not WorkerState.ERROR:
            return
        error = event.worker.error
        _log.error("worker %s", event.worker.name, exc_info=error)
        if event.worker.group == "agent":
            self.session.broken()
        self.progress.doing("")
        hint = f"This is a bug; the traceback is in {log_file()}. Your session is saved"
        self.tell(f"internal error: {type(error).__name__}: {error}", Level.ERROR, hint)

    def show_standing(self) -> None:
        """Refresh the status line and the terminal's title."""
        self.status.show(self.standing, failed=self.session.failed)
        busy = "● " if self.progress.busy else ""
        self._set_title(f"{busy}agentcli · {self.options.workspace.name}")

    def unsent(self, text: str) -> None:
        """Put text the agent has not read back into the prompt."""
        self.prompt.add_text(text)

    async def ask(self, approval: Approval) -> Reply:
        """Ask the user for approval. A message sent meanwhile denies it and becomes the reason."""
        panel = ApprovalPanel(approval)
        self._set_title(f"? agentcli · {self.options.workspace.name}")
        self.ring("agentcli asks for your approval")
        self.progress.doing("waiting for your answer")
        self._asking = True
        try:
            await self.query_one("#panel").mount(panel)
            if not self.query(Chooser):  # else it follows when the list is left
                panel.focus()
            return await panel.reply()
        finally:
            self._asking = False
            removal = panel.remove()
            if not self.query(Chooser):
                self.prompt.focus()
            self.progress.doing(f"running {approval.call.name}")
            self.show_standing()
            # A turn may be cancelled more than once. Unshielded, the next time would cancel the
            # panel's own task and, as the app waits for that one too, the app.
            await asyncio.shield(removal)

    # -- View, for the presenter -------------------------------------------------------------

    def added(self, entry: Entry) -> None:
        """An entry was appended."""
        self.transcript.added(entry)

    def changed(self, entry: Entry) -> None:
        """An entry's fields have changed."""
        self.transcript.changed(entry)

    def grew(self, entry: Answered | Thought, text: str) -> None:
        """``text`` was appended to an entry's text."""
        self.transcript.grew(entry, text)

    def removed(self, entry: Entry) -> None:
        """An entry was removed."""
        self.transcript.removed(entry)

    def doing(self, what: str) -> None:
        """The current activity has changed; the end of a long turn rings the bell."""
        if not what and self.progress.elapsed_s > _LONG_TURN_S:
            self.ring("agentcli has finished")
        # A model that tries edits asks in the middle of its answer, of which pieces still arrive.
        if not (what and self._asking):
            self.progress.doing(what)

    # -- requests of the user ----------------------------------------------------------------

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        text = event.text
        if is_command(text):
            self.act(*split(text))
        elif text.startswith("!"):
            self._shell(text[1:].strip())
        else:
            self.say(text, queue=event.queue)

    @work(group="action", exit_on_error=False)
    async def act(self, name: str, argument: str = "") -> None:
        """Run a slash command."""
        await self.actions.run(name, argument)

    @work(group="shell", exit_on_error=False)
    async def _shell(self, command: str) -> None:
        try:
            await self.actions.shell(command)
        except AgentCLIError as error:
            self.fail(error)

    def say(self, text: str, *, queue: bool = False) -> None:
        """Send a message to the agent. If an approval is open, it is denied for this reason."""
        panels = self.query(ApprovalPanel)
        if panels and not queue:
            panels.first().answer(Answer.NO, text)
            return
        if self.session.agent is not None:
            self.call_later(self.transcript.show_end)
        self.session.say(text, queue=queue)

    @on(Prompt.Quit)
    def _quit(self) -> None:
        self.leave()

    @on(ApprovalPanel.Strayed)
    async def _strayed(self, event: ApprovalPanel.Strayed) -> None:
        key = event.event
        if event.writing:
            self.prompt.begin_inserting()
        if isinstance(key, events.Paste):
            self.prompt.post_message(key)
        elif key.key == "backspace":
            self.prompt.action_delete_left()
        elif key.key == "enter":
            self.prompt.submit()
        elif key.character:
            self.prompt.insert(key.character)
        if event.writing:  # the user types a message: its letters must not count as answers
            self.prompt.focus()

    @on(Prompt.ModeChanged)
    def _mode_of_keys(self, event: Prompt.ModeChanged) -> None:
        self.query_one("#mark", Static).update(MARK if event.inserting else NORMAL)

    @on(TextArea.Changed, "#prompt")
    def _typed(self) -> None:
        text, before = self.prompt.text, self.prompt.before_cursor
        if not text:
            self._back_to_question()
        self.query_one("#writing").set_class(text.startswith("!"), "-shell")
        agent = self.session.agent
        if wants_files(before) and agent is not None:
            context = agent.context
            self.files.refresh(context.environment, context.servers, self._typed)
        prompts = prompts_of(agent.context.servers) if agent and text.startswith("/") else []
        found = candidates(before, text, [*self.commands, *prompts], self.files)
        self.completion.offer(*found, before)

    def _back_to_question(self) -> bool:
        """Move the focus from the prompt to the open approval; False if there is none."""
        return self.prompt.has_focus and self._focus_question()

    def _focus_question(self) -> bool:
        panels = self.query(ApprovalPanel)
        if not panels:
            return False
        panels.first().appeared()
        panels.first().focus()
        return True

    async def choose(
        self,
        title: str,
        choices: Sequence[Choice[T]],
        *,
        look: Callable[[T], str | None] | None = None,
        query: str = "",
    ) -> T | None:
        """Let the user choose; None if they cancel, or are choosing something else."""
        if self.query(Chooser):
            return None
        chooser = Chooser(title, choices, look=look, query=query)
        writing = self.query_one("#writing")
        await self.query_one("#panel").mount(chooser)
        writing.display = False
        try:
            return await chooser.chosen()
        finally:
            writing.display = True
            await chooser.remove()
            if self.prompt.text or not self._focus_question():
                self.prompt.focus()

    @property
    def entries(self) -> Sequence[Entry]:
        """The transcript so far."""
        return self.transcript.entries

    @property
    def writing(self) -> str:
        """The text in the prompt."""
        return self.prompt.text

    @property
    def typed_before(self) -> Sequence[str]:
        """Earlier prompts, oldest first."""
        return self.prompt.earlier.texts

    def write(self, text: str) -> None:
        """Replace the text in the prompt."""
        self.prompt.set_text(text)
        if not self.query(Chooser):
            self.prompt.focus()  # a question may have the focus

    def put_back(self, text: str) -> None:
        """Put a message back into the prompt. All of it is selected, so that typing replaces it."""
        self.write(text)
        self.prompt.select_all()
        hint = "Typing replaces it; to edit it, move the cursor first"
        self.tell("the message is in the prompt again", hint=hint)

    def set_theme(self, name: str) -> None:
        """Switch to another colour theme."""
        self.theme = name

    def copy(self, text: str) -> None:
        """Copy text to the clipboard by OSC 52."""
        self.copy_to_clipboard(text)
        self._hint("copied")

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Give the terminal to another program within the ``with`` block.

        Raises:
            UsageError: there is no terminal, as in a browser.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.suspend())
            except SuspendNotSupported as error:
                raise UsageError("no other program can be shown here") from error
            yield

    def leave(self) -> None:
        """Quit cleanly: interrupt the turn and complete the journal first."""
        self._leave()

    @work(group="leaving")
    async def _leave(self) -> None:
        agent = self.session.agent
        if agent is not None and any(isinstance(entry, Said) for entry in self.entries):
            self.left_session = agent.session.session_id
        await self.session.end()
        self._write("\x1b[23;0t")
        self.exit(0)

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Show a notice in the transcript that does not belong to the session."""
        self.transcript.added(Told(text, level, hint))

    def fail(self, error: AgentCLIError) -> None:
        """Show an error and its hint."""
        self.tell(error.message, Level.ERROR, error.hint or "")

    # -- keys --------------------------------------------------------------------------------

    def _twice(self, key: str) -> bool:
        now = time.monotonic()
        again = now - self._pressed.get(key, -_TWICE_S) < _TWICE_S
        self._pressed[key] = 0.0 if again else now
        return again

    def action_clear_or_quit(self) -> None:
        """Ctrl+C: copy the selection, clear the prompt or interrupt the turn; idle, twice quits."""
        if selected := self.screen.get_selected_text():
            self.copy(selected)
            self.screen.clear_selection()
        elif choosers := self.query(Chooser):
            choosers.first().leave()
        elif self.prompt.text:
            self.prompt.clear()
        elif self.session.interrupt():
            return
        elif self._twice("ctrl+c"):
            self.leave()
        else:
            self._hint("press ctrl+c again to quit")

    def action_leave(self) -> None:
        """Ctrl+D where no text is edited, as at an approval: quit if the prompt is empty."""
        if not self.prompt.text:
            self.leave()

    def action_escape(self) -> None:
        """Esc: interrupt the turn; twice while idle: rewind."""
        if self._back_to_question() or self.session.interrupt():
            return
        if self._twice("escape"):
            self.act("rewind")
        else:
            self._hint("press esc again to go back to an earlier message")

    async def action_quit(self) -> None:
        """Ctrl+Q, a key of every Textual app: quit."""
        self.leave()

    async def action_next_mode(self) -> None:
        """Shift+Tab: switch to the next mode."""
        await self.set_mode(Mode(self.standing.mode).next)

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode, which may answer an open question."""
        await self.session.set_mode(mode)
        for panel in self.query(ApprovalPanel):
            panel.mode_changed(self.session.allows)

    def action_expand(self) -> None:
        """Ctrl+O: unfold or fold all output."""
        self.transcript.unfold(not self.transcript.expanded)

    def action_scroll(self, direction: int) -> None:
        """Page Up, Page Down: scroll an open approval or the transcript, whatever has the focus."""
        if any(panel.turn_page(direction) for panel in self.query(ApprovalPanel)):
            return
        shown = self.transcript
        turn = shown.scroll_page_up if direction < 0 else shown.scroll_page_down
        turn(animate=False)

    def action_end(self) -> None:
        """Ctrl+End: scroll to the end and follow it."""
        self.transcript.show_end()

    def action_search_history(self) -> None:
        """Ctrl+R: search earlier prompts; in vim's normal mode, redo."""
        if not self.prompt.redo_of_vim():
            self.act("history")

    def action_edit_outside(self) -> None:
        """Ctrl+G: edit the prompt in the user's editor."""
        self.act("editor")

    # -- the terminal ------------------------------------------------------------------------

    def _hint(self, text: str) -> None:
        if self._hint_timer is not None:
            self._hint_timer.stop()  # it would take the new hint away too soon
        self.status.hint(text)
        self._hint_timer = self.set_timer(_TWICE_S, lambda: self.status.hint(""))

    def ring(self, text: str) -> None:
        """Alert a user who looks elsewhere, by the bell and a desktop notification (OSC 9)."""
        if self.options.notify and not self._focused_by_terminal:
            self.bell()
            self._write(f"\x1b]9;{text}\x07")

    _focused_by_terminal = False

    def on_app_focus(self) -> None:
        """The terminal has got the focus."""
        self._focused_by_terminal = True

    def on_app_blur(self, event: events.AppBlur) -> None:
        """The terminal has lost the focus."""
        self._focused_by_terminal = False

    def _set_title(self, title: str) -> None:
        if title != self._title:
            keep = "" if self._title else "\x1b[22;0t"  # push the old title; _leave pops it
            self._title = title
            self._write(f"{keep}\x1b]2;{escape(title)}\x07")

    def _write(self, sequence: str) -> None:
        if self._driver is not None and not self.is_headless:
            self._driver.write(sequence)
