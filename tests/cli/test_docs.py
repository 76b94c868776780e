"""docs/protocols.md, docs/scripting.md and docs/configuration.md say what is true."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from agentcli.agent.instructions import MOST_CHARS
from agentcli.config import PROJECT_KEYS
from agentcli.settings import Settings
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("configuration", "protocols", "scripting")


def text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text("utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.+?)```", text(page), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_its_commands(page: str, cli: Cli, serve: Serve, workspace: Path) -> None:
    cli.server = serve([Reply(text='{"count": 3}')], repeat=True).url
    cli.extra = {"AGENTCLI_MODEL": "openai:m", "AGENTCLI_CONFIG_DIR": str(cli.home / "config")}
    (workspace / "schema.json").write_text('{"type": "object"}')
    (workspace / "tasks").mkdir()
    (workspace / "tasks" / "one.md").write_text("Count.")
    (workspace / "README.md").touch()
    commands = "".join(blocks(page, "sh")).splitlines()
    assert len(commands) >= 3
    for command in commands:
        ended = subprocess.run(
            ["sh", "-c", command], cwd=workspace, env=cli.env, capture_output=True, text=True
        )
        assert ended.returncode == 0, (command, ended.stderr)


@pytest.mark.parametrize("page", PAGES)
def test_its_settings(page: str) -> None:
    for block in blocks(page, "toml"):
        Settings.model_validate(tomllib.loads(block))
    for block in blocks(page, "json"):
        json.loads(block)


def test_its_figures() -> None:
    assert f"{MOST_CHARS:,} characters" in text("protocols")
    for key in PROJECT_KEYS:
        assert f"`{key}`" in text("configuration")
