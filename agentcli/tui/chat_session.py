"""The session on the screen: opens it, shows its history, follows its events, sends messages.

It connects the ``Conversation``, which knows no screen, with the widgets, which know no agent.
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
from agentcli.tools.permissions import Mode
from agentcli.tui import pace, past
from agentcli.tui.entries import Level, Told
from agentcli.tui.files import FileIndex
from agentcli.tui.greeting import greeting
from agentcli.tui.presenter import Presenter, TUIHook, View
from agentcli.tui.progress import ProgressLine
from agentcli.tui.standing import Standing
from agentcli.tui.transcript import Transcript

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent
    from agentcli.tui.conversation import Conversation


class Start(Protocol):
    """Makes a conversation, of a known session or of a new one. It may take its time: it runs in
    a thread."""

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
    ) -> Conversation: ...


class Screen(View, Protocol):
    """What a session needs of the screen."""

    transcript: Transcript
    progress: ProgressLine
    files: FileIndex

    async def ask(self, approval: Approval) -> Reply:
        """Ask for an approval."""
        ...

    def unsent(self, text: str) -> None:
        """Give the user back what was not read."""
        ...

    def show_standing(self) -> None:
        """Show where the session stands."""
        ...

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Say something that is no part of the session."""
        ...

    def fail(self, error: AgentCLIError) -> None:
        """Say what went wrong and what to do."""
        ...

    def run_worker(
        self, work: Coroutine[Any, Any, None], *, group: str, exit_on_error: bool
    ) -> Worker[None]:
        """Run something beside; its faults are told."""
        ...


class ChatSession:
    """See the module. ``conversation`` is None until there is one."""

    def __init__(self, screen: Screen, start: Start, mode: str) -> None:
        self.conversation: Conversation | None = None
        self.standing = Standing(mode=mode)
        self._screen = screen
        self._start = start
        self._living: Worker[None] | None = None
        self._reading: Worker[None] | None = None
        self._waiting: list[tuple[str, bool]] = []
        self._opened = False
        self.failed = False
        """Whether there is no agent, and none on its way."""
        self._ready_before = False

    @property
    def agent(self) -> Agent | None:
        """The agent, where it is ready."""
        return self.conversation.agent if self.conversation is not None else None

    @property
    def busy(self) -> bool:
        """Whether a turn is under way."""
        return self.conversation is not None and self.conversation.busy

    # -- from the opening to the end ---------------------------------------------------------

    def open(self, session_id: str | None, *, model: str | None) -> None:
        """Go on with a session, or begin a new one, in place of the one before."""
        told = len(self._screen.transcript.entries)
        self._beside(self._open(session_id, model, told), "conversation")

    def _beside(self, work: Coroutine[Any, Any, None], group: str) -> Worker[None]:
        return self._screen.run_worker(work, group=group, exit_on_error=False)

    async def _open(self, session_id: str | None, model: str | None, told: int) -> None:
        """``told`` entries were there when it was asked for; what was said since stays."""
        screen = self._screen
        await self.end()
        if self._reading is not None:
            self._reading.cancel()  # or the past of one session would come before another's
        if self._opened:
            since = screen.transcript.entries[told:]
            screen.transcript.load([entry for entry in since if isinstance(entry, Told)])
        self._opened = True
        self.failed = False
        screen.show_standing()
        if session_id is not None:
            await self._show_past(session_id)
        try:
            self.conversation = await asyncio.to_thread(
                self._start,
                session_id=session_id,
                model=model,
                mode=self.standing.mode,
                hook=TUIHook(Presenter(screen), self._happened),
                ask=screen.ask,
                ready=self._is_ready,
                unsent=screen.unsent,
            )
        except AgentCLIError as error:
            self.broken()
            screen.fail(error)
            return
        self._living = self._beside(self._live(self.conversation), "agent")

    async def _show_past(self, session_id: str) -> None:
        """Show the end of a session's transcript at once; the rest is read beside."""
        path = store.journal_path(session_id)
        transcript = self._screen.transcript
        try:
            found = await asyncio.to_thread(past.tail, path)
        except OSError:
            return  # the agent will say what is wrong with it
        transcript.load([*found.entries, *transcript.entries])  # what was told now is seen
        if found.start:
            self._reading = self._beside(self._read_earlier(path, found.start), "past")

    async def _read_earlier(self, path: Path, end: int) -> None:
        self._screen.transcript.prepend(await asyncio.to_thread(past.before, path, end))

    async def _live(self, conversation: Conversation) -> None:
        try:
            await conversation.live()
        except AgentCLIError as error:
            self.broken()
            self._screen.fail(error)

    def broken(self) -> None:
        """There is no agent any more, and nothing goes on."""
        self.conversation = None
        self.failed = True
        self._screen.progress.doing("")
        self._screen.show_standing()

    async def end(self) -> None:
        """Close the conversation and wait until its journal has its end."""
        if self.conversation is None:
            return
        self.conversation.close()
        if self._living is not None:
            with contextlib.suppress(WorkerFailed, WorkerCancelled):
                await self._living.wait()

    # -- what happens in it ------------------------------------------------------------------

    def _is_ready(self, agent: Agent) -> None:
        session, screen = agent.session, self._screen
        if not self._ready_before:
            pace.keep()  # only once: what comes with a later session may go with it
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
        if not agent.state.history:
            for entry in greeting(agent.session):
                screen.transcript.added(entry)
        waiting, self._waiting = self._waiting, []
        for text, queue in waiting:
            self.say(text, queue=queue)

    def _happened(self, event: Event, state: AgentState) -> None:
        screen, conversation = self._screen, self.conversation
        self.standing = self.standing.after(event, state, self.agent)
        screen.show_standing()
        screen.progress.where(state.phase, state.running_step, state.retries)
        if conversation is not None:
            screen.progress.waiting(conversation.unread, len(conversation.queue))
        if isinstance(event, RunFinished):
            screen.files.forget()

    # -- what the user does ------------------------------------------------------------------

    def say(self, text: str, *, queue: bool = False) -> None:
        """Say something to the agent, now or as soon as it is ready."""
        screen, conversation = self._screen, self.conversation
        if conversation is None or conversation.agent is None:
            self._waiting.append((text, queue))
            if self.failed:
                kept = "there is no agent yet; it will be told: " + one_line(text)
                screen.tell(kept, Level.WARNING, "/model, /resume or /new opens one")
                return
            screen.progress.begin("starting the agent")
            screen.progress.waiting(0, len(self._waiting))
            return
        if not conversation.busy:
            screen.progress.begin("waiting for the model")
        conversation.say(text, queue=queue)
        screen.progress.waiting(
            conversation.unread, len(conversation.queue) if conversation.busy else 0
        )

    def interrupt(self) -> bool:
        """End the turn at once, or take back what waits for the agent; False without either."""
        if self._waiting and self.agent is None:
            waiting, self._waiting = self._waiting, []
            self._screen.progress.doing("")
            self._screen.progress.waiting(0, 0)
            self._screen.unsent("\n".join(text for text, _ in waiting))
            return True
        if self.conversation is None or not self.conversation.interrupt():
            return False
        self._screen.progress.doing("interrupting")
        return True

    async def set_mode(self, mode: Mode) -> None:
        """How much may happen without asking."""
        self.standing = replace(self.standing, mode=mode.value)
        self._screen.show_standing()
        if self.conversation is not None:
            await self.conversation.set_mode(mode)
