"""Runs a task's checks when the model says it is done, and reports failures back to the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from agentcli.agent.events import (
    CheckFinished,
    CheckStarted,
    MessageAdded,
    Status,
    StopReason,
    Warned,
)
from agentcli.agent.stop import Stop, stop_for
from agentcli.agent.stream import Stream
from agentcli.errors import InternalError
from agentcli.messages import Outcome, user
from agentcli.tools.base import ToolContext, ToolOutput
from agentcli.tools.permissions import Mode

Check: TypeAlias = Callable[[ToolContext, str], Awaitable[ToolOutput]]

_FAILED = "A check of the task failed:"


async def unchecked(context: ToolContext, command: str) -> ToolOutput:
    """The default for agents that cannot run checks; raises ``InternalError``."""
    raise InternalError(f"there is no way to run the check {command!r}")


class Checking:
    """``check`` runs one check; failures are reported to the model at most ``rounds`` times."""

    def __init__(self, check: Check, context: ToolContext, stream: Stream, rounds: int) -> None:
        self._check = check
        self._context = context
        self._stream = stream
        self._rounds = rounds
        self._round = 0

    def begin(self) -> None:
        """Reset the count of rounds for a new run."""
        self._round = 0

    async def finish(self, answer: str) -> Stop | None:
        """Stop with ``answer``, or return None after telling the model which checks fail."""
        state = self._stream.state
        if state.checks and state.mode == Mode.PLAN.value:
            await self._stream.emit(Warned("the checks were not run: plan mode only reads"))
            return stop_for(StopReason.FINAL, answer=answer)
        failed = [check for check in await self._run_all() if not check.passed]
        if not failed:
            return stop_for(StopReason.FINAL, answer=answer)
        if self._round < self._rounds:
            self._round += 1
            reports = "\n\n".join(f"{_FAILED}\n{check.output}" for check in failed)
            said = user(f"{reports}\n\nThe task is not done yet.")
            await self._stream.emit(MessageAdded(said, own=True))
            return None
        names = ", ".join(check.command for check in failed)
        return Stop(StopReason.FINAL, Status.UNSOLVED, answer, f"failed checks: {names}")

    async def _run_all(self) -> list[CheckFinished]:
        done = []
        checks = self._stream.state.checks
        # All reports together take no more space than the result of one tool.
        room = self._context.output_chars // max(1, len(checks))
        for command in checks:
            await self._stream.emit(CheckStarted(command, self._round + 1, self._rounds + 1))
            output = await self._check(replace(self._context, output_chars=room), command)
            done.append(
                CheckFinished(
                    command,
                    output.outcome is Outcome.OK,
                    output.data.get("exit_code"),
                    output.content,
                )
            )
            await self._stream.emit(done[-1])
        return done
