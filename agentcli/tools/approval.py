"""The question to the user before a call runs, and the possible answers.

a call needs approval → Ask(Approval) → Reply
the reply is COPY     → the call runs on a copy → Ask(Approval with its effect) → Reply
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from agentcli.messages import ToolCall
from agentcli.tools.base import ToolSpec
from agentcli.tools.rules import Rule


class Answer(StrEnum):
    """The possible answers to an approval."""

    ONCE = "once"
    SESSION = "session"
    """Allow it and similar calls for the session: ``Approval.rule``, or else the same call."""
    PREFIX = "prefix"
    """Allow it and similar calls from now on: ``Approval.rule`` is saved. Only if there is one."""
    NO = "no"
    COPY = "copy"
    """Run it on a copy first and show what it changes. Only if ``Approval.can_copy``."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that waits for the user's approval.

    ``segments`` are the commands of a command line that need approval, in its order.
    ``rule`` is what ``SESSION`` keeps and ``PREFIX`` saves. ``diff`` is what an edit would change,
    and ``runs`` what a check would run; empty if that is not known. ``effect`` is None until the
    call has run on a copy; then it is a unified diff of what it changed there (empty for nothing),
    and ``output`` is the tool's answer.
    ``ONCE`` then applies the effect to the workspace without running the call again, and ``NO``
    discards it. ``on_copy``: the call runs on a copy in any case, on which edits are tried.
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
    runs: str = ""
    on_copy: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The user's answer. The model is told the ``reason`` for a NO."""

    answer: Answer
    reason: str = ""


class Foreseen(NamedTuple):
    """What is known of a call before it runs; see ``Approval``."""

    diff: str = ""
    runs: str = ""


Preview = Callable[[], Awaitable[Foreseen]]
"""Computes what is known of a call before it runs.

It raises ``AgentCLIError`` if the call would fail, which then needs no question.
"""


async def no_preview() -> Foreseen:
    """A ``Preview`` for calls of which nothing is known."""
    return Foreseen()


Ask = Callable[[Approval], Awaitable[Reply]]
"""Asks the user about one call. It is never called while another question is open."""


OnWait = Callable[[float], None]
"""Called, once or more, with the seconds that a call waited for the user."""


def ignore_wait(seconds: float) -> None:
    """An ``OnWait`` that does nothing."""


class Trial(Protocol):
    """A call that can be run on a copy of the workspace before it is allowed."""

    async def run(self) -> tuple[str, str]:
        """Run it on the copy; return its effect (see ``Approval``) and the tool's answer.

        Raises:
            AgentCLIError: the copy could not be made.
        """
        ...

    async def commit(self) -> None:
        """Apply the effect to the workspace.

        Raises:
            EnvironmentOpError: code ``CONFLICT``: the workspace has changed in the meantime.
        """
        ...
