"""From settings to a running agent: each setting takes effect where it should."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agentcli import config
from agentcli.agent.events import Delta, PreflightIssue, Reviewed, RunFinished, Status
from agentcli.agent.run import RunResult
from agentcli.messages import Role
from agentcli.prompts import Prompts
from agentcli.sandbox.limits import CHECK, COMMAND
from agentcli.session import store
from agentcli.session.journal import read_events
from agentcli.settings import PermissionSettings, ProviderSettings, Settings
from agentcli.task import Resource, Task
from agentcli.tools.base import ToolKind
from agentcli.tools.plan import plan_tool
from agentcli.tools.registry import tool
from agentcli.wiring import open_agent, rule_names
from agentcli.wiring.toolbox import Toolbox, learnt_tools
from tests.server import Reply, ScriptedServer

WRITING = Reply(calls=[("write_file", {"path": "f.txt", "content": "x\n"})])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA", "CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"AGENTCLI_{name}_DIR", str(tmp_path / name.lower()))
    (tmp_path / "repo").mkdir()
    return tmp_path / "repo"


async def work(
    server: ScriptedServer, home: Path, task: Task | None = None, **settings: Any
) -> RunResult:
    more_tools = settings.pop("more_tools", ())
    provider = ProviderSettings(base_url=server.url, api_key_env="")
    made = Settings(model="mine:m", sandbox="none", providers={"mine": provider}, **settings)
    task = task or Task("do it")
    async with open_agent(made, workspace=home, task=task, more_tools=more_tools) as agent:
        return await agent.start(task.instruction).result()


def results(result: RunResult) -> list[str]:
    return [m.result.outcome.value for m in result.state.history if m.role is Role.TOOL]


def events_of(result: RunResult) -> list[Any]:
    return list(read_events(store.journal_path(result.state.session_id)))


async def test_a_run_that_is_left_is_cancelled_and_recorded(home: Path) -> None:
    endless = Reply(text="a word " * 9000, piece=7, pause_s=0.05)
    with ScriptedServer([endless]) as server:
        provider = ProviderSettings(base_url=server.url, api_key_env="")
        made = Settings(model="mine:m", sandbox="none", providers={"mine": provider})
        async with open_agent(made, workspace=home, task=Task("do it")) as agent:
            async for event in agent.start("do it"):
                if isinstance(event, Delta):
                    break
        last = list(read_events(store.journal_path(agent.state.session_id)))[-1]
    assert isinstance(last, RunFinished) and last.status is Status.CANCELLED


async def test_the_key_of_a_provider_never_reaches_the_journal(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASS", "opensesame-1234")
    with ScriptedServer([Reply(text="It is opensesame-1234.")]) as server:
        provider = ProviderSettings(base_url=server.url, api_key_env="MY_PASS")
        made = Settings(model="mine:m", sandbox="none", providers={"mine": provider})
        async with open_agent(made, workspace=home, task=Task("do it")) as agent:
            result = await agent.start("do it").result()
        assert server.requests[0].headers["authorization"] == "Bearer opensesame-1234"
    journal = store.journal_path(result.state.session_id).read_text()
    assert "opensesame" not in journal and "It is [" in journal


async def test_the_plan_gate_offers_a_tool_and_holds_edits_back(home: Path) -> None:
    planning = Reply(calls=[("plan", {"steps": ["one", "two", "three"]})])
    with ScriptedServer([WRITING, planning, WRITING, Reply(text="done")]) as server:
        result = await work(server, home, plan_gate=True)
        offered = [t["function"]["name"] for t in server.requests[0].json["tools"]]
    assert results(result) == ["denied", "ok", "ok"] and "plan" in offered
    assert (home / "f.txt").read_text() == "x\n"


async def test_a_critic_is_asked_about_the_final_answer(home: Path) -> None:
    verdict = {"judgement": "retry", "reason": "Write f.txt as well."}
    content = {"judgement": "continue", "reason": "It is there."}
    script = [
        Reply(text="done"),
        Reply(text=json.dumps(verdict)),
        WRITING,
        Reply(text="now it is"),
        Reply(text=json.dumps(content)),
    ]
    with ScriptedServer(script) as server:
        result = await work(server, home, critic="mine:judge")
        models = [request.json["model"] for request in server.requests]
    assert result.task_result == "now it is" and models == ["m", "judge", "m", "m", "judge"]
    said = [event.judgement for event in events_of(result) if isinstance(event, Reviewed)]
    assert said == ["retry", "continue"]


async def test_rates_and_the_cache_stand_around_the_tools(home: Path) -> None:
    (home / "a.txt").write_text("one\n")
    reading = Reply(calls=[("read_file", {"path": "a.txt"})])
    with ScriptedServer([reading, reading, Reply(text="done")]) as server:
        result = await work(server, home, tool_cache=True, tool_rates={"read_file": 100})
    data = [m.result.data.get("cached") for m in result.state.history if m.role is Role.TOOL]
    assert data == [None, True]


async def test_tools_of_the_callers_are_offered_too(home: Path) -> None:
    @tool(kind=ToolKind.READ)
    def secret() -> str:
        """Tell."""
        return "42"

    with ScriptedServer([Reply(calls=[("secret", {})]), Reply(text="42")]) as server:
        result = await work(server, home, more_tools=[secret])
    assert results(result) == ["ok"] and result.task_result == "42"


class TestPreflight:
    async def run(self, home: Path, task: Task) -> RunResult:
        with ScriptedServer([Reply(text="never asked")]) as server:
            result = await work(server, home, task)
            assert server.requests == []
        return result

    async def test_all_issues_are_told_in_a_run_of_no_steps(self, home: Path) -> None:
        resources = (Resource("missing.md"), Resource("../outside"))
        result = await self.run(home, Task("do it", id="bad id", resources=resources))
        assert result.exit_code == 2 and result.step_count == 0
        events = events_of(result)
        codes = [event.code for event in events if isinstance(event, PreflightIssue)]
        assert codes == ["TASK_ID_INVALID", *["TASK_RESOURCE_MISSING"] * 2]
        assert sum(isinstance(event, RunFinished) for event in events) == 1
        assert isinstance(events[-1], RunFinished) and "missing.md" in events[-1].detail

    async def test_the_manifest_is_closed(self, home: Path) -> None:
        result = await self.run(home, Task("do it", resources=(Resource("missing.md"),)))
        folder = store.journal_path(result.state.session_id).parent
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["status"] not in ("running", "") and manifest["step_count"] == 0


FILES: Sequence[tuple[str, Callable[[Settings], Any], Any]] = (
    ("plan_gate = true", lambda settings: settings.plan_gate, True),
    ('critic = "openai:m"', lambda settings: settings.critic, "openai:m"),
    ("tool_cache = true", lambda settings: settings.tool_cache, True),
    ("[tool_rates]\nfetch = 2", lambda settings: settings.tool_rates, {"fetch": 2}),
)


@pytest.mark.parametrize(("text", "read", "value"), FILES)
def test_they_can_be_set_in_the_users_file(
    text: str, read: Callable[[Settings], Any], value: Any, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert read(config.load(user_file=file, environ={})) == value


async def test_rules_may_name_tools_that_this_session_does_not_offer(home: Path) -> None:
    """The embedded model has few tools; MCP servers may be away."""
    rules = ("apply_patch", "fetch", "mcp__away__send", "mcp_resource", "*_file(x)", "mine")
    mine = tool(lambda: "", name="mine", description="Does it.")
    permissions = PermissionSettings(deny=rules)
    with ScriptedServer([Reply(text="done")]) as server:
        result = await work(server, home, permissions=permissions, more_tools=[mine])
    assert result.state.status is Status.SOLVED


async def test_every_tool_of_ours_may_be_named_in_a_rule(home: Path) -> None:
    prompts = Prompts.standard()
    settings = Settings(extra_tools=("apply_patch",), sandbox="none")
    async with AsyncExitStack() as stack:
        offered = await Toolbox(settings, home, prompts, home).gather(COMMAND, CHECK, stack, [])
    ours = [*offered, *learnt_tools(COMMAND, CHECK), plan_tool(prompts)]
    sometimes = {"mcp_resource", "skill"}
    assert {tool.spec.name for tool in ours} | sometimes == rule_names.TOOLS
