"""The interface of a front end, as the commands behind ``/`` see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from agentcli.errors import AgentCLIError, UsageError
from agentcli.tools.permissions import Mode
from agentcli.tui.chooser import Choice
from agentcli.tui.commands import Command
from agentcli.tui.entries import Entry, Level
from agentcli.tui.options import Options
from agentcli.tui.standing import Standing

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent
    from agentcli.tui.conversation import Conversation

T = TypeVar("T")


class Face(Protocol):
    """The screen, as the commands see it."""

    options: Options
    commands: Sequence[Command]

    @property
    def conversation(self) -> Conversation | None:
        """The agent and its user, once there are both."""
        ...

    @property
    def standing(self) -> Standing:
        """Where the session stands."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The transcript so far."""
        ...

    @property
    def writing(self) -> str:
        """What stands in the prompt."""
        ...

    @property
    def typed_before(self) -> Sequence[str]:
        """Earlier prompts, oldest first."""
        ...

    def write(self, text: str) -> None:
        """Put a text into the prompt in place of what is there."""
        ...

    def added(self, entry: Entry) -> None:
        """Show a new last entry."""
        ...

    def changed(self, entry: Entry) -> None:
        """Show an entry anew."""
        ...

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Say something that is no part of the session."""
        ...

    def fail(self, error: AgentCLIError) -> None:
        """Say what went wrong and what to do."""
        ...

    async def choose(
        self,
        title: str,
        choices: Sequence[Choice[T]],
        *,
        look: Callable[[T], str | None] | None = None,
        query: str = "",
    ) -> T | None:
        """Let the user choose; None where he does not."""
        ...

    def say(self, text: str, *, queue: bool = False) -> None:
        """Say something to the agent in the user's name."""
        ...

    def open(self, session_id: str | None, *, model: str | None = None) -> None:
        """Go on with a session, or begin a new one."""
        ...

    async def set_mode(self, mode: Mode) -> None:
        """How much may happen without asking."""
        ...

    def set_theme(self, name: str) -> None:
        """Other colours."""
        ...

    def doing(self, what: str) -> None:
        """What is being waited for; empty: nothing."""
        ...

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""
        ...

    def outside(self) -> AbstractContextManager[None]:
        """The terminal belongs to another program meanwhile."""
        ...

    def leave(self) -> None:
        """End in order."""
        ...


def agent_of(face: Face) -> Agent:
    """The agent, where there is one.

    Raises:
        UsageError: it is not ready.
    """
    if face.conversation is None or face.conversation.agent is None:
        raise UsageError("the agent is not ready yet", hint="Wait a moment")
    return face.conversation.agent
