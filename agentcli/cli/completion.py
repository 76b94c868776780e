"""``agentcli completion``: what a shell must read to complete our commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from agentcli.cli.app import COMPLETE
from agentcli.cli.help import App

app = App()


class Shell(StrEnum):
    """The shells that there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="The shell to print it for.")]) -> None:
    """Print a script that teaches a shell to complete agentcli.

    bash: agentcli completion bash >> ~/.bashrc. zsh: the same with ~/.zshrc. fish: agentcli
    completion fish > ~/.config/fish/completions/agentcli.fish.
    """
    from typer._completion_shared import get_completion_script

    print(get_completion_script(prog_name="agentcli", complete_var=COMPLETE, shell=shell.value))
