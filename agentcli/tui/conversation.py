"""The conversation between an agent and its user, independent of the screen.

One task owns the agent from opening to closing and works through the user's messages one turn at
a time. The screen only calls the methods here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agentcli.agent.compacting import Compaction
from agentcli.agent.events import StopReason
from agentcli.agent.hooks import Hook
from agentcli.agent.kernel import Agent
from agentcli.agent.run import Run
from agentcli.changes import Changes
from agentcli.errors import AgentCLIError, UsageError
from agentcli.messages import Role
from agentcli.settings import Settings
from agentcli.task import Budget
from agentcli.tools.approval import Ask
from agentcli.tools.mcp.tools import tool_name
from agentcli.tools.permissions import Mode
from agentcli.wiring import mcp_settings, open_agent
from agentcli.wiring.drafting import drafted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a conversation; without a ``session_id`` it is a new session.

    ``budget`` replaces the one that the session had.
    """

    settings: Settings
    workspace: Path
    model: str | None = None
    mode: str | None = None
    session_id: str | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """An MCP server: its state and the names of its tools and prompts."""

    name: str
    state: str
    tools: tuple[str, ...]
    prompts: tuple[str, ...]


class Conversation:
    """See the module docstring. ``agent`` is None until it is ready.

    ``unsent`` is called with messages that no turn has read, ``refused`` with the reason why one
    could not begin a turn.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        hook: Hook,
        ask: Ask,
        ready: Callable[[Agent], None] = lambda agent: None,
        unsent: Callable[[str], None] = lambda text: None,
        refused: Callable[[AgentCLIError], None] = lambda error: None,
    ) -> None:
        self.opening = opening
        self.agent: Agent | None = None
        self.queue: deque[str] = deque()
        self._hook = hook
        self._ask = ask
        self._ready = ready
        self._unsent = unsent
        self._refused = refused
        self._run: Run | None = None
        self._asides: list[asyncio.Future[Any]] = []
        self._between = asyncio.Lock()  # held by what must happen between turns
        self._ended: Run | None = None  # the next one reads what this one has not read
        self._wake = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._closing = False

    @property
    def busy(self) -> bool:
        """Whether a turn is running."""
        return self._run is not None

    @property
    def waits(self) -> bool:
        """Whether turns wait for something else to end."""
        return self._between.locked()

    @property
    def unread(self) -> tuple[str, ...]:
        """The messages that the running turn will read at its next step, or else the next turn."""
        run = self._run or self._ended
        return run.unread if run is not None else ()

    def take_back(self) -> str | None:
        """Remove the last message that was not read yet; None if there is none."""
        if self.queue:
            return self.queue.pop()
        run = self._run or self._ended
        return run.take_back() if run is not None else None

    async def live(self) -> None:
        """Open the agent and run turns until ``close`` is called.

        Raises:
            AgentCLIError: the agent cannot be opened.
        """
        opening = self.opening
        async with AsyncExitStack() as stack:
            agent = await stack.enter_async_context(
                open_agent(
                    opening.settings,
                    workspace=opening.workspace,
                    model=opening.model,
                    mode=opening.mode,
                    session_id=opening.session_id,
                    budget=opening.budget,
                    hooks=(self._hook,),
                    ask=self._ask,
                )
            )
            self.agent = agent
            self.opening = replace(self.opening, session_id=agent.session.session_id)
            if self.opening.mode and self.opening.mode != opening.mode:  # changed meanwhile
                await agent.set_mode(Mode(self.opening.mode))
            self._ready(agent)
            try:
                while not self._closing:
                    if self.queue:
                        await self._next_turn(agent)
                        continue
                    self._wake.clear()
                    self._at_rest.set()
                    await self._wake.wait()
            finally:
                self.agent = None
                self._at_rest.set()

    async def _next_turn(self, agent: Agent) -> None:
        """Run a turn for the first message of the queue, if it is still there."""
        async with self._between:
            if self._closing or not self.queue:
                return
            text = self.queue.popleft()
            before = len(agent.state.history)
            try:
                run = self._run = agent.start(text)
            except UsageError as error:
                self._unsent(text)
                self._refused(error)
                return
        try:
            result = await run.result()
        except asyncio.CancelledError:
            run.cancel()
            await run.result()
            raise
        finally:
            self._run, self._ended = None, run
        # Unread messages go back to the user. The text itself may be unread too, for example when
        # the disk was full. The next turn reads steering messages, unless this one was interrupted.
        new = result.state.history.since(before)
        told = any(message.role is Role.USER and message.text == text for message in new)
        unsent = [] if told else [text]
        if result.state.stop is StopReason.CANCELLED:
            while (words := run.next_steered()) is not None:
                unsent.append(words)
            unsent += self.queue
            self.queue.clear()
        if unsent:
            self._unsent("\n".join(unsent))

    # -- requests of the user ----------------------------------------------------------------

    def say(self, text: str, *, queue: bool = False) -> None:
        """Start a turn, or steer the running one; with ``queue``, start one after it."""
        if self._run is not None and not queue:
            self._run.steer(text)
            return
        self.queue.append(text)
        self._at_rest.clear()
        self._wake.set()

    async def at_rest(self) -> None:
        """Wait until all messages are answered or the agent is closed."""
        await self._at_rest.wait()

    async def aside(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do something besides the turns; None if the user interrupts it."""
        doing = asyncio.ensure_future(work)
        self._asides.append(doing)
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            doing.cancel()
            raise
        finally:
            self._asides.remove(doing)
        return None if doing.cancelled() else doing.result()

    async def compact(self, *, preview: bool = False) -> Compaction | None:
        """Shorten the conversation; None if the user interrupts it. Turns begin after it.

        Raises:
            UsageError: a turn is running.
        """
        assert self.agent is not None
        async with self._between:
            return await self.aside(self.agent.compact(preview=preview))

    async def set_model(self, name: str) -> bool:
        """Use another model; False if the user interrupts it. Turns begin after it.

        What was said for the new model is given back if the current one stays.

        Raises:
            AgentCLIError: a turn is running, or the model is not available; the current one stays.
        """
        assert self.agent is not None
        before = self.agent.client
        async with self._between:
            try:
                await self.aside(self.agent.set_model(name))
            finally:
                changed = self.agent is not None and self.agent.client is not before
                if self.queue and not changed:
                    text = "\n".join(self.queue)
                    self.queue.clear()
                    self._unsent(text)
        return changed

    def interrupt(self) -> bool:
        """Interrupt what was begun last besides the turn, or else the turn; False if idle."""
        if self._asides:
            return self._asides[-1].cancel()
        if self._run is None:
            return False
        self._run.cancel()
        return True

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode, effective from the next tool call."""
        self.opening = replace(self.opening, mode=mode.value)
        if self.agent is not None:
            await self.agent.set_mode(mode)

    async def draft(
        self, changes: Changes, paths: Collection[str], parts: Mapping[str, bytes]
    ) -> tuple[str, str]:
        """Draft a commit message for these files; see ``drafted``."""
        assert self.agent is not None
        return await drafted(self.agent, changes, paths, parts)

    def servers(self) -> tuple[list[ServerState], list[str]]:
        """The configured MCP servers, and notices about their configuration."""
        notices: list[str] = []
        opening = self.opening
        names = mcp_settings(opening.settings, opening.workspace, notices)
        tools = [spec.name for spec in self.agent.tools.specs] if self.agent else []
        there = self.agent.context.servers if self.agent else None
        prompts = there.prompts() if there else []
        running = there.connected() if there else []
        found = []
        for name in names:
            begin = tool_name(name, "")
            own = tuple(tool.removeprefix(begin) for tool in tools if tool.startswith(begin))
            idle = "starts when it is needed" if own else "does not answer, or has no tools"
            state = "connected" if name in running else idle
            offered = tuple(prompt.name for server, prompt in prompts if server == name)
            found.append(ServerState(name, state, own, offered))
        return found, notices

    def close(self) -> None:
        """Interrupt the running turn and let ``live`` return."""
        self._closing = True
        for aside in self._asides:
            aside.cancel()
        if self._run is not None:
            self._run.cancel()
        self._wake.set()
