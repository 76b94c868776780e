"""The help of every command: one voice, nothing of Typer's own names for types."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import typer
from typer._click import Context
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from agentcli.cli.app import COMMANDS
from agentcli.cli.help import OPTIONS, Command


def commands() -> Iterator[tuple[str, TyperCommand]]:
    for name in COMMANDS:
        found = typer.main.get_command(importlib.import_module(f"agentcli.cli.{name}").app)
        if isinstance(found, TyperGroup):
            for sub, command in found.commands.items():
                assert isinstance(command, TyperCommand)
                yield f"{name} {sub}", command
        else:
            assert isinstance(found, TyperCommand)
            yield name, found


ALL = dict(commands())


def shown(name: str) -> str:
    return ALL[name].get_help(Context(ALL[name], info_name=name))


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_is_for(name: str) -> None:
    command = ALL[name]
    assert isinstance(command, Command) and (command.help or "").strip()
    for param in command.params:
        assert isinstance(param, TyperOption | TyperArgument)
        if isinstance(param, TyperOption) or param.help:
            text = param.help or ""
            assert text.endswith(".") and "  " not in text, (param.name, text)
            assert not text[0].islower() or text.startswith(("cpu,", "local:", "ask,")), text
    text = shown(name)
    for theirs in ("<int", "<str", "<list", "[default", "[required", " range"):
        assert theirs not in text, (theirs, text)


def test_options_stand_by_what_they_are_about_and_say_their_defaults() -> None:
    text = shown("run")
    sections = [line for line in text.split("\n") if line.endswith(":") and line[0] != " "]
    assert sections[:3] == ["Arguments:", f"{OPTIONS}:", "Limits:"]
    assert "Usage: run [OPTIONS] [TASK.md]\n" in text
    words = " ".join(text.split())
    assert "--max-steps N End after this many steps; default: 100." in words
    assert "--executor local|ray Where tasks of a folder are worked on; default: local." in words
    assert text.index("Limits:") < text.index("--max-steps") < text.index("--timeout")


def test_arguments_are_named_in_the_usage() -> None:
    assert "Usage: sessions delete [OPTIONS] ID...\n" in shown("sessions delete")
    assert "Usage: config set [OPTIONS] KEY VALUE\n" in shown("config set")
    assert "Usage: trust [OPTIONS] [FOLDER]\n" in shown("trust")
    assert "FOLDER The project; default: the current folder." in " ".join(shown("trust").split())
