"""One session of an editor: an open agent, its turns, and the updates sent about them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from acp import RequestError, update_agent_message_text
from acp.helpers import SessionUpdate
from acp.schema import (
    ConfigOptionUpdate,
    Cost,
    PromptResponse,
    SessionConfigOptionSelect,
    SessionModeState,
    Usage,
    UsageUpdate,
)

from agentcli.acp import commands, content, options
from agentcli.acp.updates import Updates
from agentcli.agent.events import (
    Event,
    ModeChanged,
    ModelAnswered,
    ModelChanged,
    Status,
    StopReason,
)
from agentcli.agent.kernel import Agent
from agentcli.agent.run import Run, RunResult
from agentcli.errors import AgentCLIError, UsageError
from agentcli.session import store
from agentcli.session.journal import read_events
from agentcli.slash_commands import is_command, split
from agentcli.tools.permissions import Mode

_INVALID, _INTERNAL = -32602, -32603
"""JSON-RPC error codes; -32000 would make an editor ask for a login."""

_OUTPUT_S = 0.2

T = TypeVar("T")
Tell = Callable[[SessionUpdate | ConfigOptionUpdate | UsageUpdate], Awaitable[None]]

_STOPS = {
    StopReason.BUDGET_TOKENS: "max_tokens",
    StopReason.BUDGET_STEPS: "max_turn_requests",
    StopReason.BUDGET_TIME: "max_turn_requests",
    StopReason.BUDGET_COST: "max_turn_requests",
    StopReason.BUDGET_TOOLS: "max_turn_requests",
    StopReason.CANCELLED: "cancelled",
    StopReason.DECLINED: "refusal",
}


class Session:
    """See the module docstring. ``stack`` closes the agent; ``models`` are the names to offer."""

    def __init__(
        self,
        agent: Agent,
        stack: AsyncExitStack,
        workspace: Path,
        models: Iterable[str],
        tell: Tell,
    ) -> None:
        self.agent = agent
        self.id = agent.session.session_id
        self.updates = Updates(agent.context.environment.root, titled=bool(agent.state.task))
        self._stack = stack
        self._workspace = workspace
        self._model = agent.session.model
        self._models = tuple(models)
        self._tell = tell
        self._run: Run | None = None
        self._aside: asyncio.Future[Any] | None = None
        self._cancelled = False

    # -- options -----------------------------------------------------------------------------

    def modes(self) -> SessionModeState:
        """The modes, for editors that do not support options."""
        return options.modes(self.agent.session.mode)

    def options(self) -> list[SessionConfigOptionSelect]:
        """All options with their current values."""
        return options.options(self.agent.session.mode, self._model, self._models)

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode, from the next tool call on."""
        await self.agent.set_mode(mode)

    async def set_model(self, name: str) -> None:
        """Switch to another model for the following turns.

        Raises:
            AgentCLIError: a turn is running, or the model is not available. The current model
                stays.
        """
        await self.agent.set_model(name)
        self._model = name

    async def tell_options(self) -> None:
        """Send the current options after they changed in some other way than by an option."""
        update = ConfigOptionUpdate(
            session_update="config_option_update", config_options=list(self.options())
        )
        await self._tell(update)

    async def tell_commands(self) -> None:
        """Send the list of commands."""
        found = await asyncio.to_thread(commands.available, self.agent, self._workspace)
        await self._tell(found)

    async def tell_past(self) -> None:
        """Send the session's history."""
        for event in read_events(store.journal_path(self.id)):
            for update in self.updates.of_past(event):
                await self._tell(update)

    # -- turns -------------------------------------------------------------------------------

    async def turn(self, prompt: Sequence[Any]) -> PromptResponse:
        """Run one turn, sending updates meanwhile, and return the reason for its end.

        Raises:
            RequestError: the prompt is invalid, or the run failed.
            AgentCLIError: the run cannot start.
        """
        text, images = content.read(prompt)
        self._cancelled = False
        await self._tell_notices()
        if is_command(text):
            if split(text)[0] == commands.COMPACT.name:
                return await self._compact()
            expanded = commands.expanded(text, self.agent, self._workspace)
            if (found := await self._unless_cancelled(expanded)) is None:
                return PromptResponse(stop_reason="cancelled")
            text = found
        self._run = run = self.agent.start(text, images=images)
        showing = asyncio.create_task(self._show_output())
        try:
            async for event in run:
                for update in self.updates.of(event):
                    await self._tell(update)
                await self._follow(event)
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        return await self._ended(await run.result())

    def cancel(self) -> None:
        """Cancel the turn, which then returns as cancelled."""
        self._cancelled = True
        for pending in (self._aside, self._run):
            if pending is not None:
                pending.cancel()

    async def aclose(self) -> None:
        """Close the agent; the journal stays."""
        self.cancel()
        if self._aside is not None:
            await asyncio.wait([self._aside])
        if self._run is not None:
            await self._run.result()
        await self._stack.aclose()

    async def _unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the part of a turn that is no run; None if the turn is cancelled meanwhile."""
        self._aside = asyncio.ensure_future(work)
        try:
            await asyncio.wait([self._aside])
        except asyncio.CancelledError:
            self._aside.cancel()
            raise
        return None if self._cancelled else self._aside.result()

    async def _tell_notices(self) -> None:
        """Send what is to be known of this session, such as an MCP server that did not start."""
        while notices := self.agent.notices:
            await self._tell(update_agent_message_text(f"[{notices.pop(0)}]\n\n"))

    async def _show_output(self) -> None:
        """Send what tools print, a few times a second."""
        while True:
            await asyncio.sleep(_OUTPUT_S)
            for update in self.updates.output():
                await self._tell(update)

    async def _follow(self, event: Event) -> None:
        """Send changes besides the transcript: usage and options."""
        state = self.agent.state
        match event:
            case ModelAnswered(usage=usage) if (window := self.agent.context_window) is not None:
                known = state.cost_usd is not None
                cost = Cost(amount=state.cost_usd or 0.0, currency="USD") if known else None
                await self._tell(
                    UsageUpdate(
                        session_update="usage_update",
                        used=usage.total_tokens,
                        size=window,
                        cost=cost,
                    )
                )
            case ModelChanged(model=model):
                self._model = model
                await self.tell_options()
            case ModeChanged():
                await self.tell_options()

    async def _ended(self, result: RunResult) -> PromptResponse:
        state = result.state
        if state.status in (Status.FAILED, Status.INVALID):
            raise RequestError(_INTERNAL, state.detail or "the run failed")
        if state.detail and state.status is not Status.CANCELLED:
            # The detail says more than the stop reason about why the turn ended early.
            await self._tell(update_agent_message_text(f"\n\n[{state.detail}]"))
        usage = state.used.usage
        return PromptResponse(
            stop_reason=_STOPS.get(state.stop, "end_turn"),  # type: ignore[arg-type]
            usage=Usage(
                total_tokens=usage.input_tokens + usage.output_tokens,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_read_tokens=usage.cached_tokens,
            ),
        )

    async def _compact(self) -> PromptResponse:
        done = await self._unless_cancelled(self.agent.compact())
        if done is None:
            return PromptResponse(stop_reason="cancelled")
        before, after = f"{done.tokens_before:,}", f"{done.tokens_after:,}"
        text = f"About {before} tokens are {after} now." if done.passes else "Nothing to leave out."
        await self._tell(update_agent_message_text(text))
        return PromptResponse(stop_reason="end_turn")


def request_error(error: AgentCLIError) -> RequestError:
    """Convert an error of agentcli to a JSON-RPC error."""
    code = _INVALID if error.exit_code == UsageError.exit_code else _INTERNAL
    return RequestError(code, error.line(), {"exit_code": error.exit_code})
