"""Every command line mentioned in README.md and docs/ uses existing commands and options.

Commands that can be run as written are run by the tests of their pages. This test covers the rest,
such as ``agentcli sessions undo ID`` in a table.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer._click import Command, Context
from typer.core import TyperGroup

from agentcli.cli.app import app
from tests.cli.test_docs import PAGES

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = {"permissions", "sandbox"}
"""Pages, in addition to ``PAGES``, whose commands are run by their own tests."""


def mentions(text: str) -> list[str]:
    """Command lines of agentcli, written as inline code or as lines of a code block."""
    within = re.findall(r"`([^`\n]*\bagentcli [^`\n]+)`", text)
    blocks = re.findall(r"```(?:sh|text)\n(.+?)```", text, re.DOTALL)
    indented = re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + indented
    return [one for one in (*within, *lines) if re.search(r"(?:^|[ =])agentcli ", one)]


def check(line: str) -> None:
    """Check that the commands and options of a command line exist."""
    line = re.sub(r".*?(?:^|(?<=[ =]))agentcli ", "", line.replace(r"\|", "|"), count=1)
    command: Command = typer.main.get_command(app)
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", "--"):
            break
        context = Context(command)
        if word.startswith("-") and word != "-":
            if command.name is None or not isinstance(command, TyperGroup):
                name = word.partition("=")[0]
                known = {o for p in command.get_params(context) for o in p.opts + p.secondary_opts}
                assert name in known, f"{line}: {name} is no option of {context.command_path}"
        elif isinstance(command, TyperGroup):
            for name in re.split(r"[|,]", word):
                found = command.get_command(context, name)
                assert found is not None, f"{line}: there is no command {name}"
                deeper = found
            command = deeper


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_mentioned_commands_and_options_exist(file: Path) -> None:
    for line in mentions(file.read_text("utf-8")):
        check(line)


def test_mentions_are_found_and_wrong_ones_refused() -> None:
    found = [line for file in FILES for line in mentions(file.read_text("utf-8"))]
    assert len(found) > 60
    for wrong in ("agentcli rum x", "agentcli run --no-such", "X=1 agentcli sessions list|shw"):
        with pytest.raises(AssertionError):
            check(wrong)


def test_no_page_with_commands_to_run_is_left_out() -> None:
    with_blocks = {file.stem for file in FILES if "```sh\n" in file.read_text("utf-8")}
    assert with_blocks == {*PAGES, *OWN}
    fenced = {file.stem for file in FILES if "\n    agentcli " in file.read_text("utf-8")}
    assert fenced == {"README", "local-models"}  # tests/cli/test_local_docs.py
