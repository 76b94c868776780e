"""Arguments and options of the commands that act on recorded sessions."""

from __future__ import annotations

from typing import Annotated

import typer

SessionId = Annotated[str, typer.Argument(help="The session's id or a prefix of it.", metavar="ID")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
