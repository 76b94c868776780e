"""The known faults of providers, models and commands, on every wire, streamed and not."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.budget import ContextRules, RunLimits
from agentcli.agent.events import (
    AnswerRejected,
    Delta,
    MemoryLog,
    RetryScheduled,
    SessionStarted,
    StreamReset,
    ToolFinished,
    Warned,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.kernel import Agent
from agentcli.agent.module import AgentModule
from agentcli.agent.recovery import RetryConfig
from agentcli.agent.run import RunResult
from agentcli.environments.host import HostEnvironment
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ModelInfo, TextDelta
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.llm.remote import RemoteModel
from agentcli.messages import validate_history
from agentcli.tools.base import Tool, ToolContext, ToolKind
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry, tool
from tests.e2e.faults import COMMAND_OUTCOME, COMMANDS, ROWS, WINDOW, Row
from tests.running import Cli
from tests.server import Reply, ScriptedServer

WIRES: dict[str, type[RemoteModel]] = {
    "chat": OpenAIChat,
    "responses": OpenAIResponses,
    "messages": AnthropicMessages,
}
MODES = {"streaming": True, "whole": False}
INFO = ModelInfo("gpt-6-test", "test")


async def echo(context: ToolContext, text: str) -> str:
    """Say it again."""
    return text


ECHO = tool(echo, ToolKind.READ)


@asynccontextmanager
async def agent_on(
    wire: str,
    streaming: bool,
    server: ScriptedServer,
    environment: HostEnvironment,
    patience_s: float = 30.0,
    tools: Sequence[Tool] = (ECHO,),
    window: int = WINDOW,
) -> AsyncIterator[Agent]:
    make: Any = WIRES[wire]
    options = {"key_name": "THE_KEY", "streaming": streaming, "timeout_s": patience_s}
    info = replace(INFO, context_window=window)
    client = make(info, "sk-secret", server.url, **options)
    agent = Agent(
        client=client,
        tools=Registry(tools),
        context=ToolContext(environment),
        log=MemoryLog(),
        session=SessionStarted("s", environment.root, "test", "auto", "none", (), "0"),
        module=AgentModule(),
        limits=RunLimits(silence_s=patience_s),
        retry=RetryConfig(first_delay_s=0.01, max_delay_s=0.05),
        rules=ContextRules(reserve_tokens=1),  # else a nearly full request is never sent
    )
    try:
        yield agent
    finally:
        await client.aclose()


def check(agent: Agent, result: RunResult, server: ScriptedServer) -> None:
    """Check the invariants of every run."""
    assert server.faults == []
    validate_history(tuple(result.state.history))
    assert isinstance(agent.log, MemoryLog)
    assert fold_all(agent.log.events) == result.state


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ROWS)
async def test_fault(name: str, wire: str, mode: str, tmp_path: Path) -> None:
    row, streaming = ROWS[name], MODES[mode]
    replies = list(row.replies(wire, streaming))
    async with (
        ScriptedServer([*replies, Reply(text="done")]) as server,
        agent_on(wire, streaming, server, HostEnvironment(tmp_path), row.patience_s) as agent,
    ):
        shown = ""
        run = agent.start(row.prompt)
        async for event in run:
            if isinstance(event, StreamReset | AnswerRejected | ToolFinished):
                shown = ""
            if isinstance(event, Delta) and isinstance(event.delta, TextDelta):
                shown += event.delta.text
        result = await run.result()
        check(agent, result, server)
    assert isinstance(agent.log, MemoryLog)
    events = agent.log.events
    assert sum(isinstance(event, RetryScheduled) for event in events) == row.retries
    assert sum(isinstance(event, AnswerRejected) for event in events) == row.rejected
    if "said once" in row.outcome:
        assert sum(isinstance(event, Warned) for event in events) == 1
    assert result.exit_code == (3 if row.error else 0), result.state.detail
    if row.error:
        expect_failure(row, result)
    else:
        assert result.task_result == shown == "done"
    results = [event.result for event in events if isinstance(event, ToolFinished)]
    assert len(results) == len(row.tools)
    for found, expected in zip(results, row.tools, strict=True):
        assert expected == found.outcome or expected in found.content


def expect_failure(row: Row, result: RunResult) -> None:
    """The error is one clear line without secrets, and reports the place where it arose."""
    state = result.state
    assert row.error in (state.error, str(state.stop))
    assert row.says in state.detail and "\n" not in state.detail
    assert "sk-secret" not in state.detail and "Traceback" not in state.detail
    if state.error:
        assert state.place is not None
        assert (state.place.step, state.place.stage) == (1, "decide")
        assert state.place.attempt == row.retries + 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
async def test_commands(wire: str, mode: str, tmp_path: Path) -> None:
    replies = [Reply(calls=[("shell", {"command": line})]) for line, _ in COMMANDS.values()]
    environment = HostEnvironment(tmp_path)
    await environment.start()
    tools = [each for each in builtin_tools() if each.spec.name == "shell"]
    try:
        async with (
            ScriptedServer([*replies, Reply(text="done")]) as server,
            agent_on(wire, MODES[mode], server, environment, tools=tools, window=100_000) as agent,
        ):
            result = await agent.start("go").result()
            check(agent, result, server)
    finally:
        await environment.aclose()
    assert result.task_result == "done"
    results = [r for record in result.state.records for r in record.results]
    for (name, (_, expected)), found in zip(COMMANDS.items(), results, strict=True):
        assert expected in found.content, name
        assert len(found.content) < 40_000 and found.data["duration_s"] < 60


@pytest.mark.parametrize("wire", WIRES)
async def test_nobody_listens(wire: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as port:
        closed = ScriptedServer([])
        closed.port = port.getsockname()[1]
    async with agent_on(wire, True, closed, HostEnvironment(tmp_path)) as agent:
        result = await agent.start("go").result()
    assert (result.exit_code, result.state.retries) == (3, 3)
    assert "cannot reach test at http://127.0.0.1:" in result.state.detail
    assert "Check the address" in result.state.detail


@pytest.mark.parametrize("wire", WIRES)
async def test_a_connection_that_was_closed_while_idle_costs_nothing(
    wire: str, tmp_path: Path
) -> None:
    closing = Reply(calls=[("echo", {"text": "x"})], headers={"connection": "close"})
    async with (
        ScriptedServer([closing, Reply(text="done")]) as server,
        agent_on(wire, True, server, HostEnvironment(tmp_path)) as agent,
    ):
        result = await agent.start("go").result()
        check(agent, result, server)
    assert (result.task_result, result.state.retries) == ("done", 0)


def without_marks(raw: bytes) -> bytes:
    return raw.replace(b',"cache_control":{"type":"ephemeral"}', b"")


@pytest.mark.parametrize("wire", WIRES)
async def test_each_request_is_a_pure_extension_of_the_one_before(
    wire: str, tmp_path: Path
) -> None:
    script = [
        Reply(thinking="hm", text="First:", calls=[("echo", {"text": "Grüße"}), ("echo", {})]),
        Reply(status=503),
        Reply(calls=[("echo", '{"text": "tor')]),
        Reply(text=""),
        Reply(thinking="so", calls=[("nothing like/it", {"x": 1})]),
        Reply(calls=[("echo", {"text": "x"})], call_ids=["a|b"]),
        Reply(text="done"),
    ]
    async with (
        ScriptedServer(script) as server,
        agent_on(wire, True, server, HostEnvironment(tmp_path)) as agent,
    ):
        result = await agent.start("go").result()
        check(agent, result, server)
    assert result.task_result == "done" and len(server.requests) == len(script)
    assert len({request.connection for request in server.requests}) == 1
    sent = [without_marks(request.raw) for request in server.requests]
    assert sent[1] == sent[2]  # the retry after the 503
    # On the Messages wire a note joins the user's turn, so that turn may grow too.
    end = b"]}]}" if wire == "messages" else b"]}"
    for earlier, later in itertools.pairwise(sent):
        assert earlier.endswith(end) and later.startswith(earlier.removesuffix(end))
    if wire == "messages":
        for request in server.requests:
            expect_marks(request.json)


def expect_marks(body: Any) -> None:
    """Cache marks are on the last tool and on the last block of the last two user turns."""
    blocks = [m["content"][-1] for m in body["messages"] if m["role"] == "user"]
    marked = ["cache_control" in block for block in blocks]
    assert marked == [False] * (len(blocks) - 2) + [True] * min(2, len(blocks))
    assert "cache_control" in body["tools"][-1]
    assert json.dumps(body).count("cache_control") == 1 + min(2, len(blocks))


def test_the_table_says_what_is_tested() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text("utf-8")
    section = text.partition("## What a run makes of it\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]
    expected = [(name, row.outcome) for name, row in ROWS.items()]
    expected += [(name, COMMAND_OUTCOME) for name in COMMANDS]
    assert told == expected


# The same faults through the command line


def configured(tmp_path: Path, wire: str, server: ScriptedServer, *, streaming: bool) -> Cli:
    """A command line whose configuration names the scripted server ``lab``."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f'model = "lab:m"\nretries = 2\n[providers.lab]\nbase_url = "{server.url}"\n'
        f'api = "{wire}"\napi_key_env = "LAB_KEY"\nstreaming = {str(streaming).lower()}\n'
    )
    (tmp_path / "work").mkdir()
    environ = {"AGENTCLI_CONFIG_DIR": str(folder), "LAB_KEY": "sk-lab-0123456789"}
    return Cli(tmp_path, extra=environ)


RUN = ("run", "-p", "go", "--workspace", "work", "--output", "json")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
def test_a_run_recovers(wire: str, mode: str, tmp_path: Path) -> None:
    script = [
        Reply(status=429, headers={"retry-after": "0"}),
        Reply(text="Look:", calls=[("shell", {"command": "echo $((6 * 7))"})]),
        Reply(calls=[("shell", '{"command": ')]),
        Reply(text="It is 42."),
    ]
    with ScriptedServer(script) as server:
        ended = configured(tmp_path, wire, server, streaming=MODES[mode]).run(*RUN)
    assert (ended.code, server.faults) == (0, [])
    assert ended.json["final_answer"] == "It is 42." and ended.json["error"] is None
    assert ended.json["cost_usd"] is None  # the price of lab:m is unknown
    assert "exit code 0\\n42" in json.dumps(server.requests[-1].json)


@pytest.mark.parametrize("wire", WIRES)
def test_a_run_ends_with_a_clear_line(wire: str, tmp_path: Path) -> None:
    with ScriptedServer([Reply(status=401)]) as server:
        ended = configured(tmp_path, wire, server, streaming=True).run(*RUN)
    assert ended.code == 3 and "LAB_KEY" in ended.error
    assert ended.json["stop_reason"] == "provider_failed"
    assert ended.json["error"] == {
        "type": "AuthenticationError",
        "step": 1,
        "stage": "decide",
        "attempt": 1,
        "tool": "",
        "call_id": "",
    }
    assert len(server.requests) == 1


def test_a_budget_ends_a_run_in_time(tmp_path: Path) -> None:
    with ScriptedServer([Reply(text="never asked")]) as server:
        cli = configured(tmp_path, "chat", server, streaming=True)
        ended = cli.run(*RUN, "--budget-tokens", "500")
        assert (ended.code, ended.json["stop_reason"]) == (1, "budget_tokens")
        ended = cli.run(*RUN, "--max-cost", "0.5")
        assert (ended.code, ended.json["stop_reason"]) == (1, "budget_cost")
        assert "price of lab:m is not known" in ended.json["detail"]
    assert server.requests == []
