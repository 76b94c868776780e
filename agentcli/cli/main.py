"""The command ``agentcli``: finds the subcommand, and turns every error into one line.

A subcommand's module is imported only when that subcommand is called, so that ``--version`` and
``--help`` answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer
from typer._click import Command, Context, HelpFormatter
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.core import TyperGroup

from agentcli import __version__
from agentcli.cli.errors import save_traceback, show_error
from agentcli.errors import AgentCLIError

COMMANDS = {
    "run": "Work on a task until its checks pass.",
    "sessions": "List the sessions on this machine and show one.",
    "tools": "Show the tools that a model is given.",
    "doctor": "Say what works on this machine, and what does not.",
}
INTERRUPTED = 130


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code of the table in README.md."""
    if complaint := unsupported(sys.platform):
        return _fail(complaint, 2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AgentCLIError as error:
        return _fail(error.line(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except typer.Exit as exit_:
        return exit_.exit_code
    except NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except UsageError as error:
        return _fail(_usage(error), 2)
    except ClickException as error:
        return _fail(error.format_message(), 2)
    except BrokenPipeError:
        return _reader_left()
    except Exception:
        return _fail(save_traceback(), 5)


def unsupported(platform: str) -> str:
    """Why agentcli cannot run on a platform (``sys.platform``); empty where it can."""
    if platform.startswith("win"):
        return (
            "Windows itself is not supported, for it lacks the sandbox that tools run in. "
            "Run agentcli inside WSL (wsl --install, then use its Linux shell)"
        )
    return ""


def _fail(line: str, code: int) -> int:
    show_error(line)
    return code


def _usage(error: UsageError) -> str:
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "agentcli"
    return f"{message}. See: {command} --help" if message else f"see: {command} --help"


def _reader_left() -> int:
    # Whoever read our output has enough. Python would complain once more at its exit.
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(devnull, stream.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
