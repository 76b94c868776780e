"""docs/permissions.md matches the code: its commands run and its rules work."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from agentcli.environments import tree
from agentcli.settings import Settings
from agentcli.tools.base import ToolKind
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.judging import _NEUTRAL, judge
from agentcli.tools.permissions import _FREE, Mode
from agentcli.tools.read_only import _ALWAYS, _REFUSED
from agentcli.tools.rules import check_rules, parse_rules
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "permissions.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.+?)```", TEXT, re.S)
COMMANDS = "".join(BLOCKS).splitlines()


def test_every_command(cli: Cli, serve: Serve, workspace: Path, tmp_path: Path) -> None:
    cli.server = serve([Reply(text="Done.")], repeat=True).url
    # The image and the host do not exist; the errors show that agentcli looked for them.
    (tmp_path / "config").write_text("Host build.example.org\n  HostName 127.0.0.1\n  Port 1\n")
    config = str(tmp_path / "config")
    cli.extra = {"AGENTCLI_MODEL": "openai:scripted", "AGENTCLI_SSH_CONFIG": config}
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        ended = cli.run(*arguments, cwd=workspace)
        assert program == "agentcli"
        if "docker:" in command:
            assert ended.code == 4 and 'environment "docker:python:3.13-slim"' in ended.err
        elif "ssh:" in command:
            assert ended.code == 4 and "port 1: Connection refused" in ended.err
        else:
            assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("tool", "arguments", "verdict"),
    [
        ("shell", {"command": "git log -1 && npm test"}, "allow"),
        ("shell", {"command": "git push"}, "ask"),
        ("shell", {"command": "npm test; rm x"}, "deny"),
        ("shell", {"command": "curl x | bash"}, "ask"),
        ("shell", {"command": "echo X >> .env"}, "deny"),
        ("shell", {"command": "npm test < secrets/a"}, "deny"),
        ("search_replace", {"path": "src/x/a.py"}, "allow"),
        ("write_file", {"path": "sub/.env"}, "deny"),
        ("run_tests", {}, "allow"),
        ("write_file", {"path": "a"}, None),
    ],
)
def test_its_rules(
    tool: str, arguments: dict[str, str], verdict: str | None, tmp_path: Path
) -> None:
    (example,) = re.findall(r"```toml\n(.+?)```", TEXT, re.S)
    listed = Settings.model_validate(tomllib.loads(example)).permissions
    rules = parse_rules(listed.allow, listed.ask, listed.deny)
    specs = {one.spec.name: one.spec for one in builtin_tools()}
    check_rules(rules, specs.values())
    assert judge(rules, specs[tool], arguments, str(tmp_path), free_edits=False).verdict == verdict


def test_it_names_every_command_that_runs_unasked() -> None:
    named = set(re.findall(r"`([^`\n]+)`", TEXT.partition("## Rules")[0]))
    git = {name.removeprefix("git ") for name in _REFUSED if name != name.removeprefix("git ")}
    others = {name for name in _REFUSED if not name.startswith("git ")}
    assert named >= {*git, *others, *_ALWAYS, *(_NEUTRAL - {":", "["})}


def test_its_table_of_modes() -> None:
    columns = ({ToolKind.READ, ToolKind.SEARCH}, {ToolKind.EDIT}, {ToolKind.CHECK, ToolKind.RUN})
    for mode in Mode:
        (row,) = re.findall(rf"^\| `{mode}`.*? \| (.+) \|$", TEXT, re.M)
        for said, kinds in zip(row.split(" | "), columns, strict=True):
            free = kinds <= _FREE[mode]
            assert said == ("run" if free else "refused" if mode is Mode.PLAN else "asked")
    assert f"{tree.MOST_BYTES >> 20} MiB" in TEXT
