"""``agentcli chat --plain``: the same conversation line by line.

It is for dumb terminals, screen readers and pipes: no line is redrawn. Answers go to stdout,
everything else to stderr. Each input line is a message; a trailing backslash continues it on the
next line.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from io import TextIOWrapper
from typing import TypeVar

from agentcli.agent.events import Event, RunFinished, SessionStarted
from agentcli.agent.kernel import Agent
from agentcli.agent.state import AgentState
from agentcli.cli.asking import can_ask, on_terminal
from agentcli.cli.errors import show_error, show_note
from agentcli.cli.line_editing import line_editing, remember
from agentcli.cli.render import PlainRenderer, Summary
from agentcli.errors import AgentCLIError, UsageError
from agentcli.session.store import journal_path
from agentcli.settings import Settings
from agentcli.text import escape, one_line
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.permissions import Mode
from agentcli.tui.actions import Actions
from agentcli.tui.chooser import Choice
from agentcli.tui.commands import BUILTIN, Command, is_command, own_commands, split
from agentcli.tui.conversation import Conversation, Opening
from agentcli.tui.entries import Entry, Level, Said, Shown, Used
from agentcli.tui.history import PromptHistory
from agentcli.tui.options import Options
from agentcli.tui.past import tail
from agentcli.tui.presenter import Collected, Presenter, TUIHook
from agentcli.tui.standing import Standing

T = TypeVar("T")

_PAST = 6
"""How many earlier messages are shown when a session is resumed."""

_KEYS = (
    ("Enter", "send"),
    ("\\ Enter", "go on with the message on the next line"),
    ("Up", "earlier messages"),
    ("Ctrl+C", "interrupt; while idle: quit"),
    ("Ctrl+D", "quit"),
    ("!command", "run a command in the sandbox; the model sees it before its next step"),
    ("@file", "name a file"),
    ("y a p n c", "answer a question: once, this session, always, no, on a copy"),
)


class PlainChat:
    """The front end of a conversation without a screen; see ``agentcli.tui.face.Face``."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self.options = options
        self.settings = settings
        self.conversation: Conversation | None = None
        self.standing = Standing(mode=options.mode)
        self.keys: Sequence[tuple[str, str]] = _KEYS
        self.commands: Sequence[Command] = (*BUILTIN, *own_commands(options.command_folders))
        self._next: Opening | None = Opening(
            settings,
            options.workspace,
            options.model,
            options.mode,
            options.session_id,
            options.budget,
        )
        self._told = Collected()
        self._renderer = PlainRenderer(sys.stderr, sys.stdout)
        self._since = 0.0
        self._left = False
        self._unwritten: OSError | None = None
        self._earlier = PromptHistory(options.history)

    async def run(self) -> int:
        """Talk until the input ends; returns the exit code.

        Raises:
            UsageError: the user was to choose a session, and chose none; or stdin is closed.
            OSError: the output cannot be written.
        """
        if sys.stdin is None:
            raise UsageError("standard input is closed", hint="Use agentcli run for one task")
        if isinstance(sys.stdin, TextIOWrapper):  # else a line that is not UTF-8 would end the chat
            sys.stdin.reconfigure(errors="replace")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupted, number)
        actions = Actions(self)
        if self.options.pick:
            await actions.resume()
            if self._next is None or self._next.session_id is None:
                raise UsageError("no session was chosen", hint="Begin a new one: agentcli chat")
        first = [self.options.prompt] if self.options.prompt else []
        with line_editing(self._earlier):
            while self._next is not None:
                opening, self._next = self._next, None
                code = await self._talk(opening, actions, first)
                if code is not None:
                    return code
                if self._unwritten is not None:
                    raise self._unwritten
        return 0

    async def _talk(self, opening: Opening, actions: Actions, first: list[str]) -> int | None:
        """Run one session until another is opened (None) or the input ends (the exit code)."""
        self._told = Collected()
        if opening.session_id:
            self._show_past(opening.session_id)
        conversation = self.conversation = Conversation(
            opening,
            hook=TUIHook(Presenter(self._told), self._happened),
            ask=on_terminal(nullcontext) if can_ask() else _nobody,
            ready=self._is_ready,
            unsent=lambda text: show_note(f"not read: {one_line(text)}"),
            refused=self.fail,
        )
        living = asyncio.create_task(conversation.live())
        try:
            while self._next is None and not self._left and not living.done():
                await asyncio.wait(
                    [living, asyncio.create_task(conversation.at_rest())],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if living.done() or self._left or self._next is not None:
                    break
                line = first.pop(0) if first else await self._line()
                if line is None:
                    self.leave()
                    break
                await self._take(line, actions)
        finally:
            conversation.close()
            self.conversation = None
        try:
            await living
        except AgentCLIError as error:
            show_error(error.line())
            return error.exit_code
        return None

    async def _take(self, line: str, actions: Actions) -> None:
        if sys.stdin.isatty():
            self._earlier.add(line.strip())
            remember(line.strip())
        if is_command(line):
            await actions.run(*split(line))
        elif line.startswith("!"):
            await actions.shell(line[1:].strip())
        elif line.strip():
            self.say(line)

    async def _line(self) -> str | None:
        """The next message; None at the end of the input."""
        parts: list[str] = []
        while True:
            mark = "… " if parts else "> "
            line = await _read(mark if sys.stdin.isatty() else "")
            if line is None:
                return "\n".join(parts) if parts else None
            if not line.endswith("\\"):
                return "\n".join([*parts, line])
            parts.append(line[:-1])

    # -- events ------------------------------------------------------------------------------

    def _is_ready(self, agent: Agent) -> None:
        for notice in agent.notices:
            show_note(notice)
        agent.notices.clear()

    def _happened(self, event: Event, state: AgentState) -> None:
        agent = self.conversation.agent if self.conversation is not None else None
        self.standing = self.standing.after(event, state, agent)
        if isinstance(event, SessionStarted):
            self._since = time.monotonic()
        try:
            self._renderer.event(event)
            if isinstance(event, RunFinished):
                took = time.monotonic() - self._since
                self._renderer.finish(Summary(state, event.exit_code, took, goes_on=True))
        except OSError as error:  # the answers cannot be read, so the chat ends
            self._unwritten = error
            self.leave()

    def _interrupted(self, number: int) -> None:
        """End the turn on Ctrl+C; if none is in progress, end the conversation."""
        interrupted = self.conversation is not None and self.conversation.interrupt()
        if number != signal.SIGINT or not interrupted:
            _unread()
            self.leave()

    def _show_past(self, session_id: str) -> None:
        with suppress(OSError):
            for entry in tail(journal_path(session_id)).entries[-_PAST:]:
                text = getattr(entry, "text", "")
                if text:
                    who = "you: " if isinstance(entry, Said) else ""
                    _print(f"{who}{text}")

    # -- the front end: see ``Face`` ---------------------------------------------------------

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries of the conversation since this process began."""
        return self._told.entries

    @property
    def typed_before(self) -> Sequence[str]:
        """Messages of this chat and of earlier ones."""
        return self._earlier.texts

    @property
    def writing(self) -> str:
        """Always empty: there is no prompt with unfinished text."""
        return ""

    def write(self, text: str) -> None:
        """Print a text that the user may want to send again."""
        _print(f"(to send again: {text})")

    def put_back(self, text: str) -> None:
        """Print a message that was undone."""
        self.write(text)

    def added(self, entry: Entry) -> None:
        """Print what the user asked to see."""
        if isinstance(entry, Shown):
            _print_markdown(entry.text)
            if entry.diff:
                _print(entry.diff.rstrip("\n"))

    def changed(self, entry: Entry) -> None:
        """Print the result of a command that the user ran."""
        if isinstance(entry, Used) and entry.result is not None:
            _print(entry.result.content)

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Print a note or an error."""
        show = show_error if level is Level.ERROR else show_note
        show(f"{text}. {hint}" if hint else text)

    def fail(self, error: AgentCLIError) -> None:
        """Print an error with its hint."""
        show_error(error.line())

    async def choose(
        self,
        title: str,
        choices: Sequence[Choice[T]],
        *,
        look: Callable[[T], str | None] | None = None,
        query: str = "",
    ) -> T | None:
        """Print a numbered list and read a number; any other input chooses nothing."""
        if look is not None and choices and (preview := look(choices[0].value)) is not None:
            _print(preview)
        for number, choice in enumerate(choices, start=1):
            _print(f"{number:>3}  {choice.label}  {choice.detail}".rstrip())
        line = await _read(f"{title} Number: ")
        try:
            number = int(line or "")
        except ValueError:
            return None
        return choices[number - 1].value if 0 < number <= len(choices) else None

    def say(self, text: str, *, queue: bool = False) -> None:
        """Send a message to the agent."""
        if self.conversation is not None:
            self.conversation.say(text, queue=queue)

    def open(self, session_id: str | None, *, model: str | None = None) -> None:
        """Switch to another session."""
        self._next = Opening(
            self.settings,
            self.options.workspace,
            model or self.options.model,
            self.standing.mode,
            session_id,
            self.options.budget,
        )

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode."""
        if self.conversation is not None:
            await self.conversation.set_mode(mode)

    def set_theme(self, name: str) -> None:
        """Do nothing: there are no colours."""

    def doing(self, what: str) -> None:
        """Do nothing: only finished work is printed."""

    def copy(self, text: str) -> None:
        """Print the text, for the user to copy."""
        _print(text)

    def outside(self) -> AbstractContextManager[None]:
        """Do nothing: another program can use the terminal at any time."""
        return nullcontext()

    def leave(self) -> None:
        """End the conversation."""
        self._next, self._left = None, True
        if self.conversation is not None:
            self.conversation.close()


def _print(text: str) -> None:
    print(escape(text), file=sys.stderr, flush=True)


def _print_markdown(text: str) -> None:
    """Print Markdown, laid out if somebody sees it."""
    if not sys.stderr.isatty():
        _print(text)
        return
    from rich.console import Console

    from agentcli.cli.live import rendered_markdown

    Console(stderr=True, highlight=False).print(rendered_markdown(text))


async def _nobody(approval: Approval) -> Reply:
    reason = "nobody can be asked here: --mode edits or --mode auto allow more without asking"
    return Reply(Answer.NO, reason)


_waiting: set[asyncio.Future[str | None]] = set()
"""Reads in progress."""


async def _read(mark: str) -> str | None:
    """Read one line from stdin, in a daemon thread, so that it never delays the exit."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def settle(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        try:
            edited = mark and sys.stdout.isatty()
            text: str | None = input(mark) if edited else _piped(mark)
        except (EOFError, OSError, ValueError):
            text = None
        with suppress(RuntimeError):  # the loop may already be closed
            loop.call_soon_threadsafe(settle, text)

    _waiting.add(line)
    threading.Thread(target=read, daemon=True).start()
    try:
        return await line
    finally:
        _waiting.discard(line)


def _unread() -> None:
    """End all reads in progress, as at the end of the input."""
    for line in _waiting:
        if not line.done():
            line.set_result(None)


def _piped(mark: str) -> str | None:
    print(end=mark, file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
