"""The question to the user before a call runs, and the possible answers.

deciding → Ask(Approval) → Reply
COPY     → the call runs on a copy of the workspace → Ask(Approval with its effect) → Reply
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from agentcli.messages import ToolCall
from agentcli.tools.base import ToolSpec
from agentcli.tools.rules import Rule


class Answer(StrEnum):
    """What can be said to an approval."""

    ONCE = "once"
    SESSION = "session"
    """Also for the like of it until the session ends: ``Approval.rule``, or the same call."""
    PREFIX = "prefix"
    """Also for the like of it from now on: ``Approval.rule`` is saved. Only where there is one."""
    NO = "no"
    COPY = "copy"
    """Run it on a copy first and show what it changes. Only where ``Approval.can_copy``."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that waits for the user.

    ``segments`` are the commands that a command line consists of, those first that nothing allows
    yet. ``rule`` is what ``SESSION`` holds and ``PREFIX`` saves. ``diff`` is what an edit would
    change in the files as they are, empty where that is not known. ``effect`` is None until the
    call has run on a copy; then it is a unified diff of what it changed there (empty: nothing),
    and ``output`` what the tool answered. ``ONCE`` then brings the effect into the workspace,
    without running anything again, and ``NO`` drops it.
    """

    spec: ToolSpec
    call: ToolCall
    arguments: Mapping[str, Any]
    segments: tuple[str, ...] = ()
    rule: Rule | None = None
    can_copy: bool = False
    effect: str | None = None
    output: str | None = None
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """``reason`` goes to the model with a NO."""

    answer: Answer
    reason: str = ""


Look = Callable[[], Awaitable[str]]
"""What an edit would change, as a unified diff; empty where that is not known."""


async def unknown() -> str:
    """A ``Look`` for what cannot be known."""
    return ""


Ask = Callable[[Approval], Awaitable[Reply]]
"""Asks the user about one call. It is never called while another question is open."""


Waited = Callable[[float], None]
"""Told, once or more, how many seconds a call waited for the user."""


def unheeded(seconds: float) -> None:
    """A ``Waited`` for whom it does not matter."""


class Trial(Protocol):
    """A call that can be run on a copy of the workspace before it is allowed."""

    async def run(self) -> tuple[str, str]:
        """Run it there; returns its effect (see ``Approval``) and what the tool answered.

        Raises:
            AgentCLIError: there can be no copy.
        """
        ...

    async def commit(self) -> None:
        """Bring the effect into the workspace.

        Raises:
            EnvironmentOpError: code ``CONFLICT``: the workspace has changed meanwhile.
        """
        ...
