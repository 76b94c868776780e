"""The session on the screen: opens it, shows its history, follows its events, sends messages.

It connects the ``Conversation``, which knows nothing of the screen, to the widgets, which know
nothing of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from textual.worker import Worker, WorkerCancelled, WorkerFailed

from agentcli.agent.events import Event, RunFinished
from agentcli.agent.hooks import Hook
from agentcli.agent.state import AgentState
from agentcli.errors import AgentCLIError
from agentcli.session import store
from agentcli.text import one_line
from agentcli.tools.approval import Approval, Ask, Reply
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tui import pace, past
from agentcli.tui.entries import Level, Told
from agentcli.tui.files import FileIndex
from agentcli.tui.greeting import greeting
from agentcli.tui.presenter import Presenter, TUIHook, View
from agentcli.tui.progress import ProgressLine
from agentcli.tui.standing import Standing
from agentcli.tui.transcript import Transcript
from agentcli.tui.waiting import Waiting

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent
    from agentcli.tui.conversation import Conversation


class Start(Protocol):
    """Opens a conversation for an existing or a new session. It runs in a thread and may block."""

    def __call__(
        self,
        *,
        session_id: str | None,
        model: str | None,
        mode: str | None,
        hook: Hook,
        ask: Ask,
        ready: Callable[[Agent], None],
        unsent: Callable[[str], None],
        refused: Callable[[AgentCLIError], None],
    ) -> Conversation: ...


class Screen(View, Protocol):
    """The parts of the screen that a session uses."""

    transcript: Transcript
    progress: ProgressLine
    waiting: Waiting
    files: FileIndex

    async def ask(self, approval: Approval) -> Reply:
        """Ask the user for approval."""
        ...

    def unsent(self, text: str) -> None:
        """Put text the agent has not read back into the prompt."""
        ...

    def show_standing(self) -> None:
        """Refresh the status line and the terminal's title."""
        ...

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Show a notice that does not belong to the session."""
        ...

    def fail(self, error: AgentCLIError) -> None:
        """Show an error and its hint."""
        ...

    def run_worker(
        self, work: Coroutine[Any, Any, None], *, group: str, exit_on_error: bool
    ) -> Worker[None]:
        """Run a coroutine in the background; errors are shown to the user."""
        ...


class ChatSession:
    """See the module docstring. ``conversation`` is None until the agent is open."""

    def __init__(self, screen: Screen, start: Start, mode: str) -> None:
        self.conversation: Conversation | None = None
        self.standing = Standing(mode=mode)
        self._screen = screen
        self._presenter = Presenter(screen)
        self._start = start
        self._opening = asyncio.Lock()
        self._agent_worker: Worker[None] | None = None
        self._past_worker: Worker[None] | None = None
        self._waiting: list[tuple[str, bool]] = []
        self._opened = False
        self.failed = False
        """Whether there is no agent and none is being opened."""
        self._ready_before = False

    @property
    def agent(self) -> Agent | None:
        """The agent, or None while it is not ready."""
        return self.conversation.agent if self.conversation is not None else None

    @property
    def busy(self) -> bool:
        """Whether a turn is running."""
        return self.conversation is not None and self.conversation.busy

    # -- opening and closing -----------------------------------------------------------------

    def open(self, session_id: str | None, *, model: str | None) -> None:
        """Replace the current session with an existing one, or with a new one."""
        before = len(self._screen.transcript.entries)
        self._in_background(self._open(session_id, model, before), "conversation")

    def _in_background(self, work: Coroutine[Any, Any, None], group: str) -> Worker[None]:
        return self._screen.run_worker(work, group=group, exit_on_error=False)

    async def _open(self, session_id: str | None, model: str | None, before: int) -> None:
        """Open the session. Notices after the first ``before`` ones stay on the screen."""
        async with self._opening:  # whatever was chosen last is open in the end
            await self._replace(session_id, model, before)

    async def _replace(self, session_id: str | None, model: str | None, before: int) -> None:
        screen = self._screen
        await self.end()
        if self._past_worker is not None:
            self._past_worker.cancel()  # else the new session would get the old one's history
        if self._opened:
            since = screen.transcript.entries[before:]
            screen.transcript.load([entry for entry in since if isinstance(entry, Told)])
            screen.progress.where(None)
        self._opened = True
        self.failed = False
        screen.show_standing()
        if session_id is not None:
            await self._show_past(session_id)
        self._presenter = Presenter(screen)
        mode = self.standing.mode
        try:
            conversation = await asyncio.to_thread(
                self._start,
                session_id=session_id,
                model=model,
                mode=mode,
                hook=TUIHook(self._presenter, self._happened),
                ask=screen.ask,
                ready=self._is_ready,
                unsent=self._put_back,
                refused=screen.fail,
            )
        except AgentCLIError as error:
            self.broken()
            screen.fail(error)
            return
        if self.standing.mode != mode:  # it was changed meanwhile
            await conversation.set_mode(Mode(self.standing.mode))
        self.conversation = conversation
        self._agent_worker = self._in_background(self._live(conversation), "agent")

    async def _show_past(self, session_id: str, *, again: bool = False) -> None:
        """Show the end of a session's transcript at once and read the rest in the background.

        What is on the screen stays after it, or with ``again`` is replaced.
        """
        path = store.journal_path(session_id)
        transcript = self._screen.transcript
        try:
            found = await asyncio.to_thread(past.tail, path)
        except OSError:
            return  # opening the agent reports the error
        transcript.load([*found.entries, *([] if again else transcript.entries)])
        transcript.show_now()  # before the threads for the rest and the agent compete with it
        if found.start:
            self._past_worker = self._in_background(self._read_earlier(path, found.start), "past")

    async def _read_earlier(self, path: Path, end: int) -> None:
        self._screen.transcript.prepend(await asyncio.to_thread(past.before, path, end))

    async def _live(self, conversation: Conversation) -> None:
        try:
            await conversation.live()
        except AgentCLIError as error:
            self.broken()
            self._screen.fail(error)

    def broken(self) -> None:
        """Record that the agent is gone and nothing is running."""
        self.conversation = None
        self.failed = True
        self._screen.progress.doing("")
        self._show_waiting()
        self._screen.show_standing()

    async def end(self) -> None:
        """Close the conversation and wait until its journal is complete."""
        if self.conversation is None:
            return
        self.conversation.close()
        if self._agent_worker is not None:
            with contextlib.suppress(WorkerFailed, WorkerCancelled):
                await self._agent_worker.wait()

    # -- callbacks of the agent --------------------------------------------------------------

    def _is_ready(self, agent: Agent) -> None:
        session, screen = agent.session, self._screen
        if not self._ready_before:
            pace.keep()  # only once: a later session's objects must stay collectable
            self._ready_before = True
        self.standing = replace(
            self.standing,
            model=session.model,
            sandbox=session.sandbox,
            usage=agent.state.usage,
            cost_usd=agent.state.cost_usd,
            window=agent.context_window or 0,
        )
        screen.show_standing()
        for notice in agent.notices:
            screen.tell(notice, Level.WARNING)
        agent.notices.clear()
        self._presenter.begin(len(agent.state.marks))
        if not agent.state.history:
            for entry in greeting(agent.session):
                screen.transcript.added(entry)
        waiting, self._waiting = self._waiting, []
        for text, queue in waiting:
            self.say(text, queue=queue)

    def _happened(self, event: Event, state: AgentState) -> None:
        screen = self._screen
        self.standing = self.standing.after(event, state, self.agent)
        screen.show_standing()
        screen.progress.where(state.phase, state.running_step, state.step_retries)
        self._show_waiting()
        if isinstance(event, RunFinished):
            screen.files.forget()
        if self._presenter.outdated:
            self._presenter.begin(len(state.marks))
            if self._past_worker is not None:
                self._past_worker.cancel()
            self._in_background(self._show_past(state.session_id, again=True), "conversation")

    # -- requests of the user ----------------------------------------------------------------

    def say(self, text: str, *, queue: bool = False) -> None:
        """Send a message to the agent, now or as soon as it is ready."""
        screen, conversation = self._screen, self.conversation
        if conversation is None or conversation.agent is None:
            self._waiting.append((text, queue))
            if self.failed:
                kept = "there is no agent yet; it will be told: " + one_line(text)
                screen.tell(kept, Level.WARNING, "/model, /resume or /new opens one")
            else:
                screen.progress.begin("starting the agent")
            self._show_waiting()
            return
        if not conversation.busy and not conversation.waits:
            screen.progress.begin("waiting for the model")
        conversation.say(text, queue=queue)
        self._show_waiting()

    def _put_back(self, text: str) -> None:
        self._screen.unsent(text)
        self._show_waiting()

    def take_back(self) -> str | None:
        """Remove the last message that the agent has not read; None if there is none."""
        if self._waiting:
            text: str | None = self._waiting.pop()[0]
            if not self._waiting:
                self._screen.progress.doing("")
        else:
            text = self.conversation.take_back() if self.conversation is not None else None
        self._show_waiting()
        return text

    def _show_waiting(self) -> None:
        conversation = self.conversation
        if conversation is None or conversation.agent is None:
            self._screen.waiting.show([text for text, _ in self._waiting], ())
        else:
            held = conversation.busy or conversation.waits
            queued = conversation.queue if held else ()
            self._screen.waiting.show(conversation.unread, tuple(queued))

    def interrupt(self) -> bool:
        """Interrupt the turn, or take back messages that wait for the agent.

        Returns False if there was nothing to interrupt.
        """
        if self._waiting and self.agent is None:
            waiting, self._waiting = self._waiting, []
            self._screen.progress.doing("")
            self._show_waiting()
            self._screen.unsent("\n".join(text for text, _ in waiting))
            return True
        if self.conversation is None or not self.conversation.interrupt():
            return False
        if self.conversation.busy:
            self._screen.progress.doing("interrupting")
        return True

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode."""
        self.standing = replace(self.standing, mode=mode.value)
        self._screen.show_standing()
        if self.conversation is not None:
            await self.conversation.set_mode(mode)

    def allows(self, approval: Approval) -> bool:
        """Whether the call that is asked about would run without a question by now."""
        permissions = self.agent.tools.permissions if self.agent is not None else None
        return isinstance(permissions, ModePermissions) and permissions.allows(
            approval.spec, approval.arguments
        )
