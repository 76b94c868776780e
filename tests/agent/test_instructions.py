"""AGENTS.md: which files are read, when, and how little a hostile one can do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from agentcli.agent.instructions import MOST_CHARS, Instructions
from agentcli.agent.module import CodingAgent
from agentcli.environments.base import opened
from agentcli.environments.host import HostEnvironment
from agentcli.tools.builtin import builtin_tools
from tests.agent.conftest import Make
from tests.server import Reply


async def opening(root: Path, user: Path | None = None) -> str:
    async with opened(HostEnvironment(root)) as environment:
        instructions = Instructions(environment, user)
        await instructions.load()
        return instructions.opening


async def test_the_root_is_told_at_the_start_with_the_users_own_before_it(tmp_path: Path) -> None:
    root, user = tmp_path / "project", tmp_path / "config"
    root.mkdir()
    user.mkdir()
    (root / "AGENTS.md").write_text("Use tabs.\n")
    (root / "CLAUDE.md").write_text("Use spaces.\n")
    (user / "AGENTS.md").write_text("Be brief.\n")
    told = await opening(root, user)
    assert told.index("Be brief.") < told.index("Instructions of AGENTS.md\n\nUse tabs.")
    assert "Use spaces." not in told


async def test_claude_md_stands_in_where_agents_md_is_absent(tmp_path: Path) -> None:
    (tmp_path / "CLAUDE.md").write_text("Use spaces.")
    assert await opening(tmp_path) == "Instructions of CLAUDE.md\n\nUse spaces."


async def test_folders_above_count_only_within_the_repository(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("Not of this repository.")
    package = tmp_path / "repository" / "packages" / "one"
    package.mkdir(parents=True)
    (tmp_path / "repository" / "AGENTS.md").write_text("For all packages.")
    assert await opening(package) == ""
    subprocess.run(["git", "init", "-q", str(tmp_path / "repository")], check=True)
    told = await opening(package)
    assert "For all packages." in told
    assert "Not of this repository." not in told


async def test_a_link_out_of_the_workspace_carries_nothing_in(tmp_path: Path) -> None:
    root = tmp_path / "hostile"
    (root / "sub").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("the key")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / "AGENTS.md").symlink_to(secret)
    (root / "sub" / "CLAUDE.md").symlink_to(secret)
    assert "the key" not in await opening(root)
    assert "the key" not in await opening(root / "sub")


async def test_binary_and_endless_files_are_no_instructions(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_bytes(b"\x00\x01")
    (tmp_path / "CLAUDE.md").write_text("line\n" * MOST_CHARS)
    told = await opening(tmp_path)
    assert len(told) < MOST_CHARS + 100
    assert "characters left out" in told


async def test_a_folders_own_are_told_once_and_not_again_after_a_resume(
    bench: Make, tmp_path: Path
) -> None:
    (tmp_path / "pkg" / "deep").mkdir(parents=True)
    (tmp_path / "pkg" / "AGENTS.md").write_text("Tests of pkg need no network.")
    (tmp_path / "pkg" / "deep" / "a.py").write_text("a = 1\n")
    read = Reply(calls=[("read_file", json.dumps({"path": "pkg/deep/a.py"}))])
    async with opened(HostEnvironment(tmp_path)) as environment:
        module = CodingAgent(instructions=Instructions(environment))
        work = await bench([read, read, "done"], tools=builtin_tools(), module=module)
        result = await work.run()
        texts = [message.text for message in result.state.history]
        assert sum("need no network" in text for text in texts) == 1
        header = next(text for text in texts if "need no network" in text)
        assert header.startswith("Instructions of pkg/AGENTS.md")

        resumed = Instructions(environment)
        assert await resumed.near(["pkg/deep/a.py"], texts) == ""
        assert await Instructions(environment).near(["pkg/deep/a.py"], []) != ""
        assert await Instructions(environment).near(["../pkg/x", "/etc/passwd"], []) == ""
