"""The chat as a user sees it: the real application and kernel, without a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import events
from textual.pilot import Pilot

from agentcli.agent.kernel import Agent
from agentcli.settings import Settings
from agentcli.tui.app import ChatApp
from agentcli.tui.approval import ApprovalPanel
from agentcli.tui.conversation import Conversation, Opening
from agentcli.tui.entries import Entry
from agentcli.tui.options import Options

PATIENCE_S = 60.0


@dataclass
class Chat:
    """The application, and a user's actions on it."""

    app: ChatApp
    pilot: Pilot[int]
    workspace: Path

    @property
    def rows(self) -> list[str]:
        """The rows of the screen."""
        screen = self.app.screen
        strips = screen._compositor.render_strips(screen.size)
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """The screen as text."""
        return "\n".join(self.rows)

    @property
    def agent(self) -> Agent:
        """The agent; fails if there is none yet."""
        assert self.app.conversation is not None and self.app.conversation.agent is not None
        return self.app.conversation.agent

    def entries(self, kind: type[Entry]) -> list[Any]:
        """All entries of one type."""
        return [entry for entry in self.app.entries if isinstance(entry, kind)]

    async def type(self, text: str) -> None:
        """Type a text, one key after another."""
        await self.pilot.press(*[_KEYS.get(character, character) for character in text])

    async def send(self, text: str) -> None:
        """Type a text and press Enter."""
        self.app.prompt.set_text(text)
        await self.pilot.press("enter")

    async def press(self, *keys: str) -> None:
        """Press keys."""
        await self.pilot.press(*keys)

    def burst(self, text: str) -> None:
        """Send the keys of a text, as if the terminal had delivered all of them in one read."""
        for character in text:
            key = {"\n": "enter", "\t": "tab"}.get(character) or _KEYS.get(character, character)
            self.app.post_message(events.Key(key, character))

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for a condition; ``what`` describes it in the error message."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"never: {what or condition}\n{self.text}")
            await asyncio.sleep(0.02)

    async def sees(self, *texts: str) -> None:
        """Wait until all of these texts are on the screen."""
        await self.until(lambda: all(text in self.text for text in texts), f"{texts} seen")

    async def idle(self) -> None:
        """Wait until the current turn has ended and is drawn."""
        app = self.app
        await self.until(
            lambda: app.conversation and app.conversation.agent and not app.conversation.busy,
            "idle",
        )
        await self.until(lambda: app.transcript.drawn, "all of it drawn")
        await self.pilot.pause()

    async def question(self) -> None:
        """Wait for a question that accepts keys."""

        def listens() -> bool:
            panel = self.app.focused
            return isinstance(panel, ApprovalPanel) and panel.listens

        await self.until(listens, "a question")


_KEYS = {" ": "space", "/": "slash", "@": "at", "!": "exclamation_mark", "\n": "ctrl+j"}


def starter(settings: Settings, workspace: Path) -> Callable[..., Conversation]:
    """A function that starts conversations as the command line does."""

    def start(
        *, session_id: str | None, model: str | None, mode: str | None, **screen: Any
    ) -> Conversation:
        return Conversation(Opening(settings, workspace, model, mode, session_id), **screen)

    return start


@asynccontextmanager
async def chatting(
    workspace: Path,
    home: Path,
    *,
    settings: Settings | None = None,
    size: tuple[int, int] = (100, 36),
    **options: Any,
) -> AsyncIterator[Chat]:
    """Run the application; quit it in the end."""
    given: dict[str, Any] = {"model": "openai:scripted", "notify": False, **options}
    app = ChatApp(
        Options(workspace=workspace, history=home / "history.jsonl", **given),
        starter(settings or Settings(retries=0), workspace),
    )
    async with app.run_test(size=size) as pilot:
        chat = Chat(app, pilot, workspace)
        yield chat
        app.leave()
        await chat.until(lambda: app.return_code is not None, "the end")
