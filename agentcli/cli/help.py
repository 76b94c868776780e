"""Formats the help of commands: options in sections, values with descriptive names.

Typer's own plain help names values ``<int range>`` and puts all options in one list.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer._click import Context, HelpFormatter
from typer._click.exceptions import UsageError
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = "Options"
"""The section of options without a ``rich_help_panel``."""

_VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Command(TyperCommand):
    """A command whose help has one section for each ``rich_help_panel``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for param in self.params:
            if isinstance(param, TyperArgument) and param.metavar is None:
                param.metavar = param.name.upper()  # in errors as well

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse as Typer does; every error names this command."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The name of each argument, in brackets if it is optional."""
        given = [p for p in self.get_params(ctx) if isinstance(p, TyperArgument)]
        return ["[OPTIONS]", *(_usage(argument) for argument in given)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, the options without a panel, then the other panels."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], OPTIONS: []}
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument) and param.help:
                sections["Arguments"].append((_name(param), _help(param)))
            elif isinstance(param, TyperOption) and not param.hidden:
                section = sections.setdefault(param.rich_help_panel or OPTIONS, [])
                section.append((_option(param), _help(param)))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """A group whose help shows each command's whole summary; Typer cuts it to one line."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the first paragraph of each command's help, wrapped."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _first(self.commands[name].help)) for name in self.list_commands(ctx)]
            )


class App(typer.Typer):
    """A module's command or, with ``help``, a group of commands."""

    def __init__(self, help: str | None = None) -> None:
        options: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None}
        if help is not None:
            options |= {"cls": Group, "help": help, "no_args_is_help": True}
        super().__init__(**options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Like Typer's, with ``Command`` as the class."""
        return super().command(name, **{"cls": Command, **options})


def _first(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())


def _name(argument: TyperArgument) -> str:
    return (argument.metavar or "").strip("[]") + ("..." if argument.nargs != 1 else "")


def _usage(argument: TyperArgument) -> str:
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _option(option: TyperOption) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag else f"{names} {_value(option)}"


def _value(option: TyperOption) -> str:
    kind = option.type_descriptor
    if option.metavar:
        return option.metavar
    if kind.is_choice:
        return "|".join(str(getattr(each, "value", each)) for each in kind.choices or ())
    return _VALUES.get(kind.annotation, "VALUE")


def _help(param: TyperArgument | TyperOption) -> str:
    """The help text and the default."""
    text, default = param.help or "", param.default
    if default in (None, False, "", ()) or callable(default) or not param.show_default:
        return text
    shown = "the current folder" if default == Path() else getattr(default, "value", default)
    return f"{text.rstrip('.')}; default: {shown}."
