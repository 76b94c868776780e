"""Skills: their folders, who may use them, and the tool that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcli.environments.host import HostEnvironment
from agentcli.errors import ConfigError
from agentcli.messages import Outcome, ToolCall
from agentcli.prompts import Prompts
from agentcli.settings import Settings
from agentcli.skills import found_in
from agentcli.tools.base import Tool, ToolContext
from agentcli.tools.registry import Registry
from agentcli.tools.skill import skill_tool
from agentcli.trust import trust
from agentcli.wiring import open_agent
from tests.conftest import Serve
from tests.server import Reply


def write(folder: Path, name: str, description: str = "For {}.", body: str = "Do {}.") -> Path:
    place = folder / name
    place.mkdir(parents=True)
    text = f"---\nname: {name}\ndescription: >\n  {description.format(name)}\n---\n"
    (place / "SKILL.md").write_text(text + body.format(name))
    return place


def test_a_later_folder_goes_before(tmp_path: Path) -> None:
    write(tmp_path / "user", "release")
    write(tmp_path / "user", "review")
    write(tmp_path / "project", "release", body="Do ours.")
    notices: list[str] = []
    found = found_in([tmp_path / "user", tmp_path / "project"], notices)
    assert [(one.name, one.description) for one in found] == [
        ("release", "For release."),
        ("review", "For review."),
    ]
    assert found[0].instructions() == "Do ours." and notices == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Do it.", "front matter"),
        ("---\nname: a\n---\nDo it.", "description is missing"),
        ("---\nname: A b\ndescription: c\n---\nDo it.", "name should be"),
        ("---\nname: b\ndescription: c\n---\nDo it.", "its folder is a"),
        ("---\nname: a\ndescription: c\n---\n", "no instructions below"),
        ("---\nname: [\n---\nDo it.", "SKILL.md: "),
        ("---\n- a\n---\nDo it.", "not a list of keys"),
        ("x" * 200_001, "larger than 200 kB"),
        ("\x00\udcff", "not UTF-8"),
    ],
)
def test_an_invalid_skill_is_reported_and_left_out(text: str, why: str, tmp_path: Path) -> None:
    write(tmp_path, "good")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "SKILL.md").write_bytes(text.encode(errors="surrogateescape"))
    notices: list[str] = []
    assert [one.name for one in found_in([tmp_path], notices)] == ["good"]
    (notice,) = notices
    assert notice.startswith(f"a skill is left out: {tmp_path / 'a' / 'SKILL.md'}: ")
    assert why in notice


async def test_the_tool_reads_a_skill_and_its_files_and_no_others(
    workspace: Path, tmp_path: Path
) -> None:
    context = ToolContext(HostEnvironment(workspace))
    place = write(workspace / "skills", "release")
    (place / "scripts").mkdir()
    (place / "scripts" / "tag.sh").write_text("git tag v1\n")
    (tmp_path / "secret").write_text("secret")
    (place / "link").symlink_to(tmp_path / "secret")
    registry = Registry([skill_tool(Prompts.standard(), found_in([place.parent], []))])

    async def call(**arguments: str) -> tuple[str, Outcome]:
        wanted = ToolCall("1", "skill", json.dumps(arguments))
        result = await registry.dispatch(wanted, context)
        return result.content, result.outcome

    told, _ = await call(name="release")
    assert told == ("Do release.\n\n[further files of this skill (skills/release): scripts/tag.sh]")
    assert await call(name="release", file="scripts/tag.sh") == ("git tag v1\n", Outcome.OK)
    for file in ("link", "../../../secret", "/etc/passwd", "scripts"):
        text, outcome = await call(name="release", file=file)
        assert outcome is Outcome.ERROR and "there are: scripts/tag.sh" in text
    assert await call(name="deploy") == (
        "error: there is no skill deploy; there are: release",
        Outcome.ERROR,
    )
    (place / "SKILL.md").unlink()
    assert "not a regular file" in (await call(name="release"))[0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"AGENTCLI_{kind}_DIR", str(tmp_path / "home" / kind.lower()))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    yield tmp_path / "home" / "config"


async def test_a_session_has_the_users_and_a_trusted_projects(
    home: Path, serve: Serve, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / "skills", "mine")
    write(workspace / ".agents" / "skills", "ours")
    server = serve([Reply(calls=[("skill", {"name": "mine"})]), Reply(text="Done.")] * 2)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)

    async def system_prompt() -> tuple[str, list[str]]:
        before = len(server.requests)
        async with open_agent(Settings(), workspace=workspace, model="openai:m") as agent:
            await agent.start("Do it.").result()
            first, second = (request.json["messages"] for request in server.requests[before:])
            assert second[-1]["content"] == "Do mine."
            return first[0]["content"], agent.notices

    prompt, notices = await system_prompt()
    assert "\n- mine: For mine." in prompt and "- ours:" not in prompt
    assert ".agents/skills is left out: this folder is not trusted (agentcli trust)" in notices
    trust(workspace)
    prompt, notices = await system_prompt()
    assert "\n- mine: For mine.\n- ours: For ours." in prompt
    assert not any("left out" in notice for notice in notices)


def test_a_tool_is_one_of_the_registry() -> None:
    assert isinstance(skill_tool(Prompts.standard(), []), Tool)
    with pytest.raises(ConfigError):
        skill_tool(Prompts(), [])
