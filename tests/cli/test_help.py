"""The help of every command: a uniform style, without Typer's names for types."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer._click import Context
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from agentcli.cli.agent_options import network_flags
from agentcli.cli.app import COMMANDS, _with_command, call
from agentcli.cli.help import OPTIONS, Command
from agentcli.errors import AgentCLIError


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
            assert not text[0].islower() or text.startswith(("cpu,", "local:")), text
    text = shown(name)
    for theirs in ("<int", "<str", "<list", "[default", "[required", " range"):
        assert theirs not in text, (theirs, text)


def test_options_stand_by_what_they_are_about_and_say_their_defaults() -> None:
    text = shown("run")
    sections = [line for line in text.split("\n") if line.endswith(":") and line[0] != " "]
    assert sections[:3] == ["Arguments:", f"{OPTIONS}:", "Limits:"]
    assert "Usage: run [OPTIONS] [TASK.md]\n" in text
    words = " ".join(text.split())
    assert "--max-steps N Stop after this many steps; default: 100." in words
    assert "--executor local|ray Where the tasks of a folder run; default: local." in words
    assert text.index("Limits:") < text.index("--max-steps") < text.index("--timeout")


def test_a_quoted_sentence_begins_a_chat() -> None:
    assert _with_command(["fix the bug", "--plain"]) == ["chat", "fix the bug", "--plain"]
    assert _with_command(["fix", "the", "bug"]) == ["fix", "the", "bug"]  # may be misspelt
    assert _with_command(["help "]) == ["help "]


def test_arguments_are_named_in_the_usage() -> None:
    assert "Usage: sessions delete [OPTIONS] ID...\n" in shown("sessions delete")
    assert "Usage: config set [OPTIONS] KEY VALUE\n" in shown("config set")
    assert "Usage: trust [OPTIONS] [FOLDER]\n" in shown("trust")
    assert "FOLDER The project; default: the current folder." in " ".join(shown("trust").split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("fix the tests", "'fix'. To say it: agentcli chat 'fix the tests'. See: agentcli --help"),
        ("fly --fast", "No such command 'fly'. See: agentcli --help"),
        ("rnu the tests", "No such command 'rnu'. Did you mean 'run'? See: agentcli --help"),
        ("run -p", "Option '-p' requires an argument. See: agentcli run --help"),
        ("run -p x --env dcoker:x", "env should be host, docker:IMAGE or ssh:HOST[:FOLDER]"),
        ("run -p x --jobs 2", "--jobs and --executor are for a folder of tasks"),
        ("run -p x --executor ray", "--jobs and --executor are for a folder of tasks"),
        ("run -p x --network full --domain a.com", "--domain': is for --network allow, not full"),
        ("run -p x --device tpu", "--device': 'tpu' is not cpu, cuda or cuda:N"),
        ("generate x --device cuda:x", "--device': 'cuda:x' is not cpu, cuda or cuda:N"),
        ("completion tcsh", "Invalid value for 'SHELL': 'tcsh' is not one of"),
        ("init --model opnai:x", '"opnai". Did you mean "openai"? Others need [providers.opnai]'),
        ("init --model zzz:x", ", vllm. Others need [providers.zzz] with a base_url"),
    ],
)
def test_what_cannot_be_meant_is_told(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AgentCLIError) as caught:
        call(words.split())
    assert told in caught.value.line() and caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_host_to_be_reached_asks_for_the_network_that_it_needs() -> None:
    assert network_flags(None, ["a.com"]) == {"network": "allow", "domains": ["a.com"]}
    assert network_flags(None, None) == {"network": None, "domains": None}
