"""The Typer application: the subcommands and what they have in common.

A subcommand's module is imported only when that subcommand is called, so that ``--version`` and
``--help`` answer at once.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from difflib import get_close_matches
from typing import Annotated

import typer
from typer._click import Command, Context, HelpFormatter
from typer._click.exceptions import ClickException, NoArgsIsHelpError
from typer._click.exceptions import UsageError as ClickUsageError
from typer.core import TyperGroup

from agentcli import __version__
from agentcli.errors import UsageError

COMPLETE = "_AGENTCLI_COMPLETE"
"""The environment variable by which a shell asks for completions."""

COMMANDS = {
    "chat": "Talk with the agent about the code in a folder.",
    "run": "Work on a task until its checks pass.",
    "generate": "Continue a text with a model on this machine.",
    "models": "List models, show what they need, and test them.",
    "sessions": "List, search, show, undo, fork, replay and export sessions.",
    "trace": "Show where a session's time, tokens and money went.",
    "sandbox": "Run a command in the sandbox that the model's commands get.",
    "tools": "List the tools that a model is given.",
    "acp": "Serve an editor over the Agent Client Protocol.",
    "init": "Write a settings file with a model that is available here.",
    "config": "Show and change settings.",
    "mcp": "Connect to the MCP servers and list their tools.",
    "trust": "Allow a project's own settings, servers, commands and hooks.",
    "completion": "Print a completion script for a shell.",
    "doctor": "Check what works on this machine.",
}


class LazyGroup(TyperGroup):
    """A group whose commands are modules of ``agentcli.cli``, each with a Typer ``app``."""

    def list_commands(self, ctx: Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import the command's module and make the command of its app."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"agentcli.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """Find the command; suggest one for a misspelt name or for plain words."""
        name, said = args[0], " ".join(args)
        if name not in COMMANDS:
            if near := get_close_matches(name, COMMANDS):
                ctx.fail(f"No such command {name!r}. Did you mean {', '.join(map(repr, near))}?")
            if " " in said and not any(word.startswith("-") for word in args):
                ctx.fail(f"No such command {name!r}. To say it: agentcli chat {shlex.quote(said)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup,
    help="A terminal coding assistant that runs a task until its checks pass.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentcli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def call(arguments: list[str] | None) -> int:
    """Run a command line; returns its exit code.

    Raises:
        UsageError: the command line is not valid.
        AgentCLIError, Exception: whatever the subcommand raises.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETE in os.environ:  # a shell asks for completions
        from typer._completion_classes import completion_init

        completion_init()
    else:
        words = _with_command(words)
    try:
        code = app(words, prog_name="agentcli", standalone_mode=False)
    except NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except ClickUsageError as error:
        raise UsageError(_usage(error)) from error
    except ClickException as error:
        raise UsageError(error.format_message()) from error
    return code if isinstance(code, int) else 0


def _with_command(words: list[str]) -> list[str]:
    """Add a command if none is named.

    It is ``run`` before ``-p``, and ``chat`` before other options, a quoted sentence, or alone at a
    terminal. A single word gets no such default, since it could be a misspelt command.
    """
    if not words:
        at_terminal = all(s is not None and s.isatty() for s in (sys.stdin, sys.stdout))
        return ["chat"] if at_terminal else []
    own = ("-h", "--help", "--version")
    if not words[0].startswith("-") or words[0] in own:
        return ["chat", *words] if len(words[0].split()) > 1 else words
    if not _has_prompt(words[:1]):
        _check_no_command_after(words)
    # Other assistants also take -p without a command.
    return ["run" if _has_prompt(words) else "chat", *words]


def _has_prompt(words: list[str]) -> bool:
    return any(word in ("-p", "--prompt") or word.startswith("--prompt=") for word in words)


def _check_no_command_after(words: list[str]) -> None:
    """Refuse ``agentcli --model X run ...``, which would be a chat that begins with "run".

    Raises:
        UsageError: the first word after the options is a command.
    """
    if COMMANDS.keys().isdisjoint(words):
        return
    chat = typer.main.get_command(importlib.import_module("agentcli.cli.chat").app)
    context = Context(chat, ignore_unknown_options=True)
    said = chat.make_parser(context).parse_args(list(words))[0].get("prompt")
    if said in COMMANDS:
        raise UsageError(
            f"options stand after the command: agentcli {said} ...",
            hint=f"For a chat that begins with the word: agentcli chat -- {said}",
        )


_WORDING = [
    (re.compile(theirs), ours)
    for theirs, ours in (
        (": Value error, ", ": "),
        (": Input should be ", ": must be "),
        (", unable to parse string as .*", ""),
        ("must be a valid integer", "must be a whole number"),
        ("must be a valid number", "must be a number"),
        ("must be greater than or equal to ", "must be at least "),
        ("must be less than or equal to ", "must be at most "),
    )
]
"""Phrases in the messages of Typer and its libraries, and their replacements."""


def _usage(error: ClickUsageError) -> str:
    message = error.format_message().rstrip(".")
    for theirs, ours in _WORDING:
        message = theirs.sub(ours, message)
    command = error.ctx.command_path if error.ctx else "agentcli"
    if not message:
        return f"see: {command} --help"
    words = ("No such option: --task", "Got unexpected extra argument")
    if command == "agentcli run" and message.startswith(words):
        return f'{message}. A task in words: {command} -p "TEXT". See: {command} --help'
    return f"{message}{'' if message.endswith('?') else '.'} See: {command} --help"
