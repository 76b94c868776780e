"""``agentcli chat``: the conversation, full screen, as plain lines or as a web page."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click import Context

from agentcli import extras
from agentcli.cli.agent_options import (
    AgentMode,
    BudgetTokensOption,
    DomainOption,
    EnvOption,
    MaxCostOption,
    ModelOption,
    ModeOption,
    NetworkOption,
    NoSandboxOption,
    OfflineOption,
    ProfileOption,
    WorkspaceOption,
    agent_flags,
)
from agentcli.cli.errors import log_to_file, show_note
from agentcli.cli.help import App, Command
from agentcli.cli.local_options import (
    ContextOption,
    DeviceOption,
    DtypeOption,
    QuantizeOption,
    ThreadsOption,
    local_flags,
)
from agentcli.cli.workspace import workspace_folder
from agentcli.errors import CapabilityError, InternalError, UsageError

if TYPE_CHECKING:
    from agentcli.settings import Settings
    from agentcli.tui.conversation import Conversation
    from agentcli.tui.options import Options

CHOOSE = "?"
"""The value of ``--resume`` when it is given without an ID."""


class ChatCommand(Command):
    """Lets ``--resume`` be given without a value: a session is then chosen on the screen."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Insert a value for ``--resume`` if it has none; ids begin with a digit."""
        given: list[str] = []
        for at, word in enumerate(args):
            given.append(word)
            following = args[at + 1] if at + 1 < len(args) else ""
            if word == "--resume" and not following[:1].isdigit():
                given.append(CHOOSE)
        return super().parse_args(ctx, given)


class Theme(StrEnum):
    """Values of ``--theme``."""

    DARK = "dark"
    LIGHT = "light"
    CONTRAST = "contrast"


app = App()


@app.command(cls=ChatCommand)
def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="The first message.", metavar="PROMPT")
    ] = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    mode: ModeOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume a session; without ID, choose one on the screen.", metavar="[ID]"
        ),
    ] = None,
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Resume this folder's last session.")
    ] = False,
    theme: Annotated[Theme | None, typer.Option(help="Colours; default: dark.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of a full screen.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Serve the chat as a page for a browser on this machine.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            help="The port of --web; default: any free one.", min=0, max=65535, show_default=False
        ),
    ] = 0,
    no_mouse: Annotated[
        bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal.")
    ] = False,
    budget_tokens: BudgetTokensOption = None,
    max_cost: MaxCostOption = None,
    env: EnvOption = None,
    profile: ProfileOption = None,
    no_sandbox: NoSandboxOption = False,
    network: NetworkOption = None,
    domain: DomainOption = None,
    offline: OfflineOption = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    context: ContextOption = None,
    threads: ThreadsOption = None,
) -> int:
    """Talk with the agent about the code in a folder.

    Keys and commands are listed by /help. Exit codes: 0, or 2 wrong usage, 4 no sandbox,
    5 internal error, 130 interrupted by a signal, 143 terminated.
    """
    if web:
        return _serve(port)
    flags = {
        **agent_flags(
            model=model,
            mode=mode,
            env=env,
            no_sandbox=no_sandbox,
            network=network,
            domain=domain,
            offline=offline,
            budget_tokens=budget_tokens,
            max_cost=max_cost,
        ),
        **local_flags(device, dtype, quantize, context, threads),
        "chat.theme": theme.value if theme else None,
        "chat.mouse": False if no_mouse else None,
    }
    log_to_file()
    folder = workspace_folder(workspace or Path())
    arguments = Arguments(prompt or "", model, folder, resume, continue_, budget_tokens, max_cost)
    settings = _settings(folder, flags, profile)
    if plain or not _can_draw():
        return _plain(_options(arguments, settings), settings)
    from agentcli.cli.first_frame import first_frame

    with first_frame(settings.chat.theme, settings.mode or AgentMode.ASK):
        return _full(_options(arguments, settings), settings)


@dataclass(frozen=True)
class Arguments:
    """The arguments of the command line that are not settings, or must override a session."""

    prompt: str
    model: str | None
    folder: Path
    resume: str | None
    continue_: bool
    budget_tokens: int | None
    max_cost: float | None


def _settings(folder: Path, flags: dict[str, Any], profile: str | None) -> Settings:
    from agentcli import config

    return config.load(folder, flags=flags, profile=profile)


def _options(arguments: Arguments, settings: Settings) -> Options:
    """The options of the screen."""
    from agentcli.folders import user_folder
    from agentcli.slash_commands import command_folders
    from agentcli.task import Budget
    from agentcli.tui.options import Options

    chosen = settings.chat
    return Options(
        workspace=arguments.folder,
        history=user_folder() / "history.jsonl",
        model=arguments.model,
        mode=settings.mode or AgentMode.ASK.value,
        session_id=_session(arguments),
        budget=Budget(tokens=arguments.budget_tokens, cost=arguments.max_cost),
        theme=chosen.theme,
        vim=chosen.keys == "vim",
        prompt=arguments.prompt,
        command_folders=command_folders(arguments.folder),
        pick=arguments.resume == CHOOSE,
        notify=chosen.notify,
        mouse=chosen.mouse,
        notices=settings.notices,
        remember=_remember,
    )


def _remember(key: str, value: str) -> None:
    """Save a setting that was chosen on the screen."""
    from agentcli.cli.config import set_value, user_file

    set_value(user_file(), key, value)


def _end_with_terminal() -> None:
    """End the process when its terminal goes away.

    SIGHUP does not tell: the parent process may ignore it, and none is sent if the terminal is not
    the controlling one. Textual would go on reading the closed terminal, at full speed.
    """
    from agentcli.cli.signals import TERMINATED

    if not sys.stdin.isatty():
        return
    terminal = select.poll()
    terminal.register(sys.stdin.fileno(), 0)  # hang-ups and errors are always reported

    def wait() -> None:
        if any(event & select.POLLHUP for _, event in terminal.poll()):
            os._exit(TERMINATED)  # at once: a proper end would wait for the terminal

    threading.Thread(target=wait, name="terminal", daemon=True).start()


def _full(options: Options, settings: Settings) -> int:
    """Run the full screen. Slow imports come later, when the user can already type."""
    import asyncio

    from agentcli.cli.signals import interruptible
    from agentcli.tui.app import ChatApp

    if os.environ.get("TEXTUAL_DRIVER") and sys.platform == "linux":
        from agentcli.sandbox import linux

        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)

    _end_with_terminal()

    def start(
        *, session_id: str | None, model: str | None, mode: str | None, **screen: Any
    ) -> Conversation:
        from agentcli.tui.conversation import Conversation, Opening

        opening = Opening(settings, options.workspace, model, mode, session_id, options.budget)
        return Conversation(opening, **screen)

    screen = ChatApp(options, start)

    async def run() -> int | None:
        with interruptible(screen.leave) as interruption:
            left = await screen.run_async(mouse=options.mouse)
        return interruption.exit_code or left

    left = asyncio.run(run())
    if left is None:  # it crashed, and Textual has shown the traceback
        return InternalError.exit_code
    if session := screen.left_session:  # the alternate screen takes all else with it
        from agentcli.wording import usage_line

        used = usage_line(screen.standing.usage)
        print(f"{used}\nsession {session}: agentcli chat --resume {session}", file=sys.stderr)
    return left or 0


def _plain(options: Options, settings: Settings) -> int:
    import asyncio

    from agentcli.cli.plain import PlainChat

    for notice in settings.notices:
        show_note(notice)
    return asyncio.run(PlainChat(options, settings).run())


def _serve(port: int) -> int:
    """Serve the page until Ctrl+C; each visit is a separate chat with the other options."""
    try:
        from agentcli.tui.web import ChatServer
    except ImportError as error:
        raise CapabilityError(
            "the page needs the extra 'web'", hint=extras.install("web")
        ) from error
    words = iter(sys.argv[1:])
    rest = ["chat"]  # the user may have left it out
    for word in words:
        if word == "--port":
            next(words, None)
        elif word == "chat" and rest == ["chat"]:
            continue
        elif word != "--web" and not word.startswith("--port="):
            rest.append(word)
    # No shell in between, so that the chat ends when its server is killed.
    command = f"exec {shlex.join([sys.executable, '-m', 'agentcli', *rest])}"
    log_to_file()
    ChatServer(command, port=port, announce=_announce).serve()
    return 0


def _announce(address: str) -> None:
    print(address, flush=True)
    show_note("open this address in a browser on this machine; Ctrl+C ends it")


def _can_draw() -> bool:
    """Whether there is a terminal to draw on, or a web page instead."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return os.environ.get("TERM") != "dumb" and all(s is not None and s.isatty() for s in streams)


def _session(arguments: Arguments) -> str | None:
    """The session to resume, if any."""
    named = arguments.resume if arguments.resume != CHOOSE else None
    if named is None and not arguments.continue_:
        return None
    from agentcli.session import store

    if named is not None:
        if arguments.continue_:
            raise UsageError("--resume ID and --continue were both given", hint="Give one of them")
        return store.find_session(named)
    return store.last_session(arguments.folder)
