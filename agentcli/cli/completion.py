"""``agentcli completion``: prints the script with which a shell completes commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from agentcli.cli.app import COMPLETE
from agentcli.cli.help import App

app = App()


_PREPARED = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }"


class Shell(StrEnum):
    """The supported shells."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print a completion script for a shell.

    bash: agentcli completion bash >> ~/.bashrc. zsh: the same with ~/.zshrc. fish: agentcli
    completion fish > ~/.config/fish/completions/agentcli.fish.
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="agentcli", complete_var=COMPLETE, shell=shell.value)
    if shell is Shell.ZSH:  # a bare .zshrc does not set up completion
        script = script.replace("\ncompdef ", f"\n{_PREPARED}\ncompdef ")
    print(script)
