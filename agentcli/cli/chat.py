"""``agentcli chat``: the terminal to live in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentcli.cli.errors import log_to_file

if TYPE_CHECKING:
    from agentcli.agent.hooks import Hook
    from agentcli.agent.kernel import Agent
    from agentcli.tools.approval import Ask
    from agentcli.tui.conversation import Conversation

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="What to begin with.", metavar="PROMPT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="PROVIDER:NAME, such as openai:gpt-6.2-sol.", metavar="MODEL")
    ] = None,
    workspace: Annotated[
        Path | None,
        typer.Option(help="The folder to work in; default: the current one.", metavar="DIR"),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="ask, edits, auto or plan.", metavar="MODE")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with a session; without ID, choose one.", metavar="ID"),
    ] = None,
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with this folder's last session.")
    ] = False,
    theme: Annotated[
        str | None, typer.Option(help="dark, light or contrast.", metavar="THEME")
    ] = None,
    no_mouse: Annotated[
        bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal.")
    ] = False,
) -> int:
    """Talk with the agent about the code in this folder."""
    from agentcli import config
    from agentcli.tui.app import ChatApp
    from agentcli.tui.face import Options

    folder = (workspace or Path(".")).resolve()
    settings = config.load(folder, flags={"model": model, "mode": mode})
    options = Options(
        workspace=folder,
        history=config.user_folder() / "history.jsonl",
        model=model,
        mode=settings.mode or "ask",
        prompt=prompt or "",
        theme=theme or "dark",
        session_id=resume or None,
    )

    def start(
        *,
        session_id: str | None,
        model: str | None,
        mode: str | None,
        hook: Hook,
        ask: Ask,
        ready: Callable[[Agent], None],
        unsent: Callable[[str], None],
    ) -> Conversation:
        from agentcli.tui.conversation import Conversation, Opening

        opening = Opening(settings, folder, model, mode, session_id)
        return Conversation(opening, hook=hook, ask=ask, ready=ready, unsent=unsent)

    log_to_file()
    screen = ChatApp(options, start)
    code = asyncio.run(screen.run_async(mouse=not no_mouse))
    return code or 0
