"""``agentcli chat``: the terminal to live in."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click import Context
from typer.core import TyperCommand

from agentcli.cli.errors import log_to_file, show_note
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
)
from agentcli.errors import CapabilityError, UsageError, WorkspaceError

if TYPE_CHECKING:
    from agentcli.settings import Settings
    from agentcli.tui.conversation import Conversation
    from agentcli.tui.options import Options

CHOOSE = "?"
"""What ``--resume`` stands for without an ID."""


class ChatCommand(TyperCommand):
    """``--resume`` may stand alone: then a session is chosen on the screen."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Give ``--resume`` its value where it has none; ids begin with a digit."""
        given: list[str] = []
        for at, word in enumerate(args):
            given.append(word)
            following = args[at + 1] if at + 1 < len(args) else ""
            if word == "--resume" and not following[:1].isdigit():
                given.append(CHOOSE)
        return super().parse_args(ctx, given)


class ChatMode(StrEnum):
    """What ``--mode`` can be."""

    ASK = "ask"
    EDITS = "edits"
    AUTO = "auto"
    PLAN = "plan"


class Theme(StrEnum):
    """What ``--theme`` can be."""

    DARK = "dark"
    LIGHT = "light"
    CONTRAST = "contrast"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=ChatCommand)
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
        ChatMode | None, typer.Option(help="How much may happen without asking; default: ask.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with a session; without ID, choose one on the screen.", metavar="[ID]"
        ),
    ] = None,
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with this folder's last session.")
    ] = False,
    theme: Annotated[Theme | None, typer.Option(help="Colours; default: dark.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Line by line, without a full screen.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="As a page on this machine, for a browser.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Of the page; 0: any that is free.", min=0, max=65535)
    ] = 0,
    no_mouse: Annotated[
        bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal.")
    ] = False,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="Run tools with your own rights.")
    ] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    context: ContextOption = None,
    threads: ThreadsOption = None,
) -> int:
    """Talk with the agent about the code in a folder.

    Keys and commands are listed by /help. Exit codes: 0, or 2 wrong usage, 4 no sandbox,
    5 internal error.
    """
    if web:
        return _serve(port)
    asked = Asked(
        prompt or "",
        model,
        _folder(workspace),
        mode,
        resume,
        continue_,
        theme or Theme.DARK,
        not no_mouse,
        not no_sandbox,
    )
    if plain or not _can_draw():
        return _plain(*_settled(asked))
    from agentcli.cli.first_frame import first_frame

    with first_frame(asked.theme, mode or ChatMode.ASK):
        return _full(*_settled(asked))


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    prompt: str
    model: str | None
    folder: Path
    mode: ChatMode | None
    resume: str | None
    continue_: bool
    theme: Theme
    mouse: bool
    sandbox: bool


def _settled(asked: Asked) -> tuple[Options, Settings]:
    """The options of the screen and the settings of the agent, from all layers."""
    from agentcli import config
    from agentcli.trust import is_trusted
    from agentcli.tui.options import Options

    log_to_file()
    folder = asked.folder
    flags = {
        "model": asked.model,
        "mode": asked.mode.value if asked.mode else None,
        "sandbox": None if asked.sandbox else "none",
    }
    trusted = is_trusted(folder)
    settings = config.load(folder, flags=flags, trusted=trusted)
    commands = [config.user_folder() / "commands"]
    if trusted:  # a project's commands are texts that somebody else may have written
        commands.append(folder / ".agentcli" / "commands")
    options = Options(
        workspace=folder,
        history=config.user_folder() / "history.jsonl",
        model=asked.model,
        mode=settings.mode or ChatMode.ASK.value,
        session_id=_session(asked),
        theme=asked.theme.value,
        prompt=asked.prompt,
        command_folders=tuple(commands),
        pick=asked.resume == CHOOSE,
        mouse=asked.mouse,
        notices=settings.notices,
    )
    return options, settings


def _full(options: Options, settings: Settings) -> int:
    """The full screen. What is heavy is imported beside it, when it can be written on already."""
    import asyncio

    from agentcli.tui.app import ChatApp

    if os.environ.get("TEXTUAL_DRIVER") and sys.platform == "linux":
        from agentcli.sandbox import linux

        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)

    def start(
        *, session_id: str | None, model: str | None, mode: str | None, **screen: Any
    ) -> Conversation:
        from agentcli.tui.conversation import Conversation, Opening

        return Conversation(Opening(settings, options.workspace, model, mode, session_id), **screen)

    screen = ChatApp(options, start)
    return asyncio.run(screen.run_async(mouse=options.mouse)) or 0


def _plain(options: Options, settings: Settings) -> int:
    import asyncio

    from agentcli.cli.plain import PlainChat

    for notice in settings.notices:
        show_note(notice)
    return asyncio.run(PlainChat(options, settings).run())


def _serve(port: int) -> int:
    """Serve the page until Ctrl+C; each visit is a chat of its own, with the other options."""
    try:
        from agentcli.tui.web import ChatServer
    except ImportError as error:
        raise CapabilityError(
            "the page needs the extra 'web'", hint="Install agentcli[web]"
        ) from error
    words = iter(sys.argv[1:])
    rest: list[str] = []
    for word in words:
        if word == "--port":
            next(words, None)
        elif word != "--web" and not word.startswith("--port="):
            rest.append(word)
    # No shell in between, so that a chat whose server was killed ends with it.
    command = f"exec {shlex.join([sys.executable, '-m', 'agentcli', *rest])}"
    log_to_file()
    ChatServer(command, port=port, announce=_announce).serve()
    return 0


def _announce(address: str) -> None:
    print(address, flush=True)
    show_note("open this address in a browser on this machine; Ctrl+C ends it")


def _can_draw() -> bool:
    """Whether there is a terminal that can be drawn on, or a page that stands for one."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return os.environ.get("TERM") != "dumb" and all(s is not None and s.isatty() for s in streams)


def _folder(given: Path | None) -> Path:
    folder = given or Path(".")
    try:
        folder = folder.resolve(strict=True)
    except OSError as error:
        raise WorkspaceError(f"the workspace {folder} cannot be used: {error.strerror}") from error
    if not folder.is_dir():
        raise WorkspaceError(f"the workspace {folder} is not a folder")
    return folder


def _session(asked: Asked) -> str | None:
    """The session to go on with, if any."""
    named = asked.resume if asked.resume != CHOOSE else None
    if named is None and not asked.continue_:
        return None
    from agentcli.session import store

    if named is not None:
        if asked.continue_:
            raise UsageError("--resume ID and --continue were both given", hint="Give one of them")
        return store.find_session(named)
    found = store.list_sessions(asked.folder)
    if not found:
        raise UsageError(
            f"there is no session of {asked.folder} yet", hint="Begin one: agentcli chat"
        )
    return found[0].id
