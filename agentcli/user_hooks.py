"""The user's own commands at fixed points of a session: ``[[hooks]]`` in the settings.

A command reads one JSON object from stdin. Exit code 0 means no objection; 2 is an objection, with
stderr as its reason: before a tool the call is denied, after a tool the model is told, and at the
end of a turn the model must continue. Any other failure is reported and stops nothing. What a
command prints at the start of a session is added to the system prompt.

Hooks are the user's programs: they run in the workspace with the user's rights, outside the
sandbox, with the same environment variables as tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agentcli.agent.critics import Judgement, Review, Rounds
from agentcli.agent.events import Event, ToolFinished
from agentcli.agent.hooks import Allow, Deny, Hook, Verdict
from agentcli.agent.state import AgentState
from agentcli.errors import ToolError
from agentcli.messages import Role, ToolCall
from agentcli.sandbox.limits import Limits
from agentcli.sandbox.outside import environment
from agentcli.sandbox.process import ExecResult, Launch, Supervisor
from agentcli.settings import SHELL, HookSettings
from agentcli.text import clip, one_line

OBJECTS = 2
"""The exit code of a command that objects."""

_MOST_OBJECTIONS = 3
_MOST_CHARS = 10_000


class UserHooks:
    """All of the user's hooks. ``each`` reads events; together they act as a critic."""

    def __init__(
        self, hooks: Sequence[HookSettings], workspace: str, environ: Mapping[str, str]
    ) -> None:
        self._supervisor = Supervisor()
        self._supervisor.start()
        env = environment(environ)
        self.each = [UserHook(hook, workspace, env, self._supervisor) for hook in hooks]
        self._objected = Rounds()

    async def aclose(self) -> None:
        """Kill commands that are still running."""
        await self._supervisor.aclose()

    async def at_start(self, session_id: str) -> str:
        """Run the commands for the start of a session and return what they print.

        Raises:
            ToolError: a command objects.
        """
        printed = []
        for hook in self._of("session_start"):
            result = await hook.run({"session_id": session_id})
            if result is not None and result.exit_code == OBJECTS:
                raise ToolError(f"hook {hook.name} objects: {_reason(result)}")
            printed.append(clip(result.stdout.strip(), _MOST_CHARS) if result else "")
        return "\n\n".join(filter(None, printed))

    async def review(self, state: AgentState) -> Review:
        """Report objections to the model; at the end of a turn, first run the ``stop`` commands."""
        found = [said for hook in self._of("after_tool") for said in hook.objections()]
        last = state.history[-1] if state.history else None
        if last is not None and last.role is Role.ASSISTANT and not last.calls:
            found += await self._at_stop(state, last.text)
        return Review(Judgement.RETRY, "\n\n".join(found)) if found else Review()

    async def _at_stop(self, state: AgentState, answer: str) -> list[str]:
        found: list[str] = []
        hooks = self._of("stop")
        if hooks and self._objected.so_far(state) >= _MOST_OBJECTIONS:  # one is never content
            hooks[0].tell(f"the turn ends although it was objected to {_MOST_OBJECTIONS} times")
            return found
        for hook in hooks:
            result = await hook.run({**_about(state, None), "answer": answer})
            if result is not None and result.exit_code == OBJECTS:
                found.append(f"hook {hook.name} objects to stopping: {_reason(result)}")
        if found:
            self._objected.add()
        return found

    def _of(self, event: str) -> list[UserHook]:
        return [hook for hook in self.each if hook.settings.event == event]


class UserHook(Hook):
    """One hook. A failure is reported at the next event and does not block other hooks."""

    def __init__(
        self,
        settings: HookSettings,
        workspace: str,
        env: Mapping[str, str],
        supervisor: Supervisor,
    ) -> None:
        self.settings = settings
        self._workspace = workspace
        self._env = env
        self._supervisor = supervisor
        self._objections: list[str] = []
        self._failure = ""

    @property
    def name(self) -> str:
        """The command in one line."""
        words = self.settings.command
        return one_line(words[-1] if words[:-1] == SHELL else " ".join(words), 100)

    async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
        """Deny the call if the command objects to it."""
        if self._is_for("before_tool", call.name):
            result = await self.run(_about(state, call))
            if result is not None and result.exit_code == OBJECTS:
                return Deny(_reason(result))
        return Allow()

    async def on_event(self, event: Event, state: AgentState) -> None:
        """Run the command after a tool; objections are kept for ``objections``.

        Raises:
            ToolError: the command failed, now or earlier.
        """
        if isinstance(event, ToolFinished) and self._is_for("after_tool", event.result.name):
            told = {
                "outcome": event.result.outcome.value,
                "content": event.result.content,
                "paths": list(event.result.paths),
            }
            call = _call(state, event.result.call_id)
            result = await self.run({**_about(state, call), "result": told})
            if result is not None and result.exit_code == OBJECTS:
                said = f"hook {self.name} says about {event.result.name}: {_reason(result)}"
                self._objections.append(said)
        if failure := self._failure:
            self._failure = ""
            raise ToolError(failure)

    def tell(self, text: str) -> None:
        """Report something about the hook at the next event."""
        self._failure = text

    def objections(self) -> list[str]:
        """Return the objections to results so far, and clear them."""
        found, self._objections = self._objections, []
        return found

    async def run(self, about: Mapping[str, Any]) -> ExecResult | None:
        """Run the command with ``about`` as its input; None if it fails."""
        told = {"event": self.settings.event, "workspace": self._workspace, **about}
        launch = Launch(
            self.settings.command,
            self._env,
            cwd=self._workspace,
            limits=Limits(time_s=self.settings.timeout_s),
            stdin=json.dumps(told).encode(),
        )
        result = await self._supervisor.exec(launch)
        if result.exit_code in (0, OBJECTS):
            return result
        why = result.error or f"exit code {result.exit_code}"
        self._failure = one_line(f"{why} {result.stderr}", 300)
        return None

    def _is_for(self, event: str, tool: str) -> bool:
        return self.settings.event == event and fnmatchcase(tool, self.settings.match)


def _about(state: AgentState, call: ToolCall | None) -> dict[str, Any]:
    about: dict[str, Any] = {"session_id": state.session_id, "step": state.running_step}
    if call is not None:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
        about["tool"] = {"name": call.name, "arguments": arguments}
    return about


def _call(state: AgentState, call_id: str) -> ToolCall | None:
    for place in range(len(state.history) - 1, -1, -1):
        if calls := state.history[place].calls:  # the last message with calls is the one
            return next((call for call in calls if call.id == call_id), None)
    return None


def _reason(result: ExecResult) -> str:
    return clip(result.stderr.strip(), _MOST_CHARS) or "no reason given"
