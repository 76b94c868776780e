"""The interface of the front end that slash commands use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
    """What slash commands need from the screen."""

    options: Options
    commands: Sequence[Command]
    keys: Sequence[tuple[str, str]]
    """The keys that ``/help`` lists, and what each does."""

    @property
    def conversation(self) -> Conversation | None:
        """The open conversation, or None."""
        ...

    @property
    def standing(self) -> Standing:
        """What the status line shows of the session."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The transcript so far."""
        ...

    @property
    def writing(self) -> str:
        """The text in the prompt."""
        ...

    @property
    def typed_before(self) -> Sequence[str]:
        """Earlier prompts, oldest first."""
        ...

    def write(self, text: str) -> None:
        """Replace the text in the prompt."""
        ...

    def put_back(self, text: str) -> None:
        """Put a message back into the prompt, to be edited, sent again or replaced."""
        ...

    def added(self, entry: Entry) -> None:
        """Append an entry."""
        ...

    def changed(self, entry: Entry) -> None:
        """Redraw an entry whose fields have changed."""
        ...

    def tell(self, text: str, level: Level = Level.NOTE, hint: str = "") -> None:
        """Show a notice that does not belong to the session."""
        ...

    def fail(self, error: AgentCLIError) -> None:
        """Show an error and its hint."""
        ...

    async def choose(
        self,
        title: str,
        choices: Sequence[Choice[T]],
        *,
        look: Callable[[T], str | None] | None = None,
        query: str = "",
    ) -> T | None:
        """Let the user choose; None if they cancel."""
        ...

    def say(self, text: str, *, queue: bool = False) -> None:
        """Send a message to the agent."""
        ...

    def open(self, session_id: str | None, *, model: str | None = None) -> None:
        """Replace the current session with an existing one, or with a new one."""
        ...

    async def set_mode(self, mode: Mode) -> None:
        """Change the permission mode."""
        ...

    def set_theme(self, name: str) -> None:
        """Switch to another colour theme."""
        ...

    def doing(self, what: str) -> None:
        """Show the current activity; empty means that there is none."""
        ...

    def copy(self, text: str) -> None:
        """Copy text to the clipboard."""
        ...

    def outside(self) -> AbstractContextManager[None]:
        """Give the terminal to another program within the ``with`` block."""
        ...

    def leave(self) -> None:
        """Quit cleanly."""
        ...


def agent_of(face: Face) -> Agent:
    """The agent.

    Raises:
        UsageError: it is not ready yet.
    """
    agent = conversation_of(face).agent
    assert agent is not None
    return agent


def conversation_of(face: Face) -> Conversation:
    """The conversation, with its agent.

    Raises:
        UsageError: it is not ready yet.
    """
    if face.conversation is None or face.conversation.agent is None:
        raise UsageError("the agent is not ready yet", hint="Wait a moment")
    return face.conversation


def check_idle(face: Face) -> None:
    """Make sure that no turn is running.

    Raises:
        UsageError: one is.
    """
    if face.conversation is not None and face.conversation.busy:
        raise UsageError("a turn is running", hint="Wait, or press Esc to interrupt it")


@contextmanager
def doing(face: Face, what: str) -> Iterator[None]:
    """Show an activity within the ``with`` block; a turn that has begun meanwhile shows its own."""
    face.doing(what)
    try:
        yield
    finally:
        if face.conversation is None or not face.conversation.busy:
            face.doing("")
