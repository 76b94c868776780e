"""A command that has commands of its own: how its help lists them."""

from __future__ import annotations

from typer._click import Context, HelpFormatter
from typer.core import TyperGroup


class Group(TyperGroup):
    """Its help says the whole of what each command does, where Typer cuts it at the line's end."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The first paragraph of each command's own help, wrapped."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _first(self.commands[name].help)) for name in self.list_commands(ctx)]
            )


def _first(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())
