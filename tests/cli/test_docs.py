"""The pages of docs/ about the command line match the code."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from agentcli.agent.instructions import MOST_CHARS
from agentcli.config import PROJECT_KEYS
from agentcli.prompts import Prompts
from agentcli.sandbox.limits import CHECK, COMMAND
from agentcli.settings import Settings
from agentcli.tools import background, fetch
from agentcli.wiring.toolbox import Toolbox
from tests.conftest import Serve
from tests.running import Cli
from tests.server import Reply

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("configuration", "getting-started", "protocols", "scripting", "tools")


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
        settings = tomllib.loads(block)
        if points := settings.pop("project", None):
            example = tomllib.loads((DOCS.parent / "examples/plugin/pyproject.toml").read_text())
            assert points["entry-points"] == example["project"]["entry-points"]
        Settings.model_validate(settings)
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_github_action(cli: Cli, serve: Serve, workspace: Path) -> None:
    """The workflow is valid YAML, and its step that runs agentcli works."""
    (block,) = blocks("scripting", "yaml")
    (job,) = yaml.safe_load(block)["jobs"].values()
    (step,) = [one for one in job["steps"] if "agentcli run" in one.get("run", "")]
    install, *_ = [one["run"] for one in job["steps"] if "pipx install" in one.get("run", "")]
    assert subprocess.run(["sh", "-nc", install], check=False).returncode == 0
    assert set(step["env"]) == {"TITLE", "BODY", "ANTHROPIC_API_KEY"}
    (workspace / "test_it.py").write_text("def test_it(): pass\n")
    server = serve([Reply(text="Done.")])
    cli.server = server.url
    cli.extra = {"AGENTCLI_MODEL": "openai:m", "TITLE": "Wrong median", "BODY": "Of [] it is 0."}
    ended = subprocess.run(
        ["bash", "-ec", step["run"]], cwd=workspace, env=cli.env, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "check passed" in ended.stderr
    assert server.requests[0].json["messages"][-1]["content"].startswith("Wrong median\n\nOf []")


def test_every_page_is_named_in_the_readme_and_every_link_leads_somewhere() -> None:
    pages = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
    readme = pages[0].read_text("utf-8")
    assert [page.name for page in pages[1:] if f"docs/{page.name})" not in readme] == []
    headings = {page: set(map(_anchor, _headings(page))) for page in pages}
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in headings[there], f"{page.name}: {target}"


def _headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


async def test_the_table_of_tools(tmp_path: Path) -> None:
    toolbox = Toolbox(Settings(), tmp_path, Prompts.standard(), tmp_path)
    async with AsyncExitStack() as stack:
        tools = await toolbox.gather(COMMAND, CHECK, stack, [])
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", text("tools"), re.MULTILINE)
    assert sorted(rows) == sorted((tool.spec.name, tool.spec.kind.value) for tool in tools)


def test_its_figures() -> None:
    tools = text("tools")
    assert f"larger than {fetch.MOST_BYTES // 2**20} MiB" in tools
    assert f"{fetch.MOST_CHARS:,}\ncharacters at a time" in tools
    assert f"to {background.TIME_S / 3600:g} hours, {background.MOST_RUNNING} of them" in tools
    assert f"Up to {background.OUTPUT_BYTES // 2**21} MiB" in tools
    assert f"{MOST_CHARS:,} characters" in text("protocols")
    for key in PROJECT_KEYS:
        assert f"`{key}`" in text("configuration")
