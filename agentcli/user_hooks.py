"""The user's own commands at fixed moments of a session: ``[[hooks]]`` in the settings.

A command reads one JSON object from stdin. Exit code 0 lets things go on; 2 objects, with stderr
as the reason: before a tool the call is denied, after a tool the model is told, at the end of a
turn the model must go on. Any other failure is reported and stops nothing. What a command prints
at the start of a session joins the system prompt.

Hooks are the user's programs: they run in the workspace with his rights, outside the sandbox, with
the environment that tools get too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agentcli.agent.critics import Judgement, Review
from agentcli.agent.events import Event, ToolFinished
from agentcli.agent.hooks import Allow, Deny, Hook, Verdict
from agentcli.agent.state import AgentState
from agentcli.errors import ToolError
from agentcli.messages import Role, ToolCall
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.outside import environment
from agentcli.sandbox.process import ExecResult, Launch, Supervisor
from agentcli.settings import HookSettings
from agentcli.text import clip, one_line

OBJECTS = 2
"""The exit code of a command that objects."""

_MOST_OBJECTIONS = 3
_MOST_CHARS = 10_000


class UserHooks(Hook):
    """All of the user's hooks: a reader of events that may deny calls, and a critic of steps."""

    def __init__(
        self, hooks: Sequence[HookSettings], workspace: str, environ: Mapping[str, str]
    ) -> None:
        self._hooks = hooks
        self._supervisor = Supervisor()
        self._supervisor.start()
        self._workspace = workspace
        self._env = environment(environ)
        self._told: list[str] = []
        self._objections = 0

    async def aclose(self) -> None:
        """Kill what still runs."""
        await self._supervisor.aclose()

    async def at_start(self, session_id: str) -> str:
        """What the commands for the start of a session print.

        Raises:
            ToolError: one of them failed, or objects.
        """
        printed = []
        for hook in self._of("session_start"):
            result = await self._run(hook, {"session_id": session_id})
            if result.exit_code == OBJECTS:
                raise ToolError(f"{_line(hook)} objects: {_reason(result)}")
            printed.append(clip(result.stdout.strip(), _MOST_CHARS))
        return "\n\n".join(filter(None, printed))

    async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
        """Deny the call if a command objects to it."""
        for hook in self._of("before_tool", call.name):
            result = await self._run(hook, self._about(state, call))
            if result.exit_code == OBJECTS:
                return Deny(_reason(result))
        return Allow()

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Run the commands for after a tool; what they object is kept for ``review``."""
        if not isinstance(event, ToolFinished):
            return
        call = _call(state, event.result.call_id)
        for hook in self._of("after_tool", event.result.name):
            told = {
                "outcome": event.result.outcome.value,
                "content": event.result.content,
                "paths": list(event.result.paths),
            }
            result = await self._run(hook, {**self._about(state, call), "result": told})
            if result.exit_code == OBJECTS:
                self._told.append(f"{_line(hook)} says of {event.result.name}: {_reason(result)}")

    async def review(self, state: AgentState) -> Review:
        """Tell the model what was objected; at the end of a turn ask the commands for that."""
        told, self._told = self._told, []
        last = state.history[-1] if state.history else None
        if last is not None and last.role is Role.ASSISTANT and not last.calls:
            told += await self._at_stop(state, last.text)
        if not told:
            return Review()
        return Review(Judgement.RETRY, "\n\n".join(told))

    async def _at_stop(self, state: AgentState, answer: str) -> list[str]:
        found = []
        for hook in self._of("stop"):
            if self._objections >= _MOST_OBJECTIONS:  # a hook that is never content
                break
            result = await self._run(hook, {**self._about(state, None), "answer": answer})
            if result.exit_code == OBJECTS:
                self._objections += 1
                found.append(f"{_line(hook)} objects to stopping: {_reason(result)}")
        return found

    def _of(self, event: str, tool: str = "") -> list[HookSettings]:
        return [
            hook
            for hook in self._hooks
            if hook.event == event and (not tool or fnmatchcase(tool, hook.match))
        ]

    def _about(self, state: AgentState, call: ToolCall | None) -> dict[str, Any]:
        about: dict[str, Any] = {"session_id": state.session_id, "step": state.running_step}
        if call is not None:
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = call.arguments
            about["tool"] = {"name": call.name, "arguments": arguments}
        return about

    async def _run(self, hook: HookSettings, about: Mapping[str, Any]) -> ExecResult:
        told = {"event": hook.event, "workspace": self._workspace, **about}
        launch = Launch(
            hook.command,
            self._env,
            cwd=self._workspace,
            limits=Limits(time_s=hook.timeout_s),
            stdin=json.dumps(told).encode(),
        )
        result = await self._supervisor.exec(launch)
        if result.exit_code not in (0, OBJECTS):
            why = result.error or f"exit code {result.exit_code}"
            raise ToolError(f"{_line(hook)}: {one_line(f'{why} {result.stderr}', 300)}")
        return result


def _call(state: AgentState, call_id: str) -> ToolCall | None:
    for place in range(len(state.history) - 1, -1, -1):
        if calls := state.history[place].calls:  # the last message with calls is the one
            return next((call for call in calls if call.id == call_id), None)
    return None


def _line(hook: HookSettings) -> str:
    return f"hook {one_line(' '.join(hook.command), 100)}"


def _reason(result: ExecResult) -> str:
    return clip(result.stderr.strip(), _MOST_CHARS) or "no reason given"
