"""Sub-agents in whole runs: their prompt, tools and cost; and the to-do list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentcli.messages import Usage
from tests.conftest import Serve
from tests.running import Cli, Ended
from tests.server import Reply, Request

QUESTIONS = ("Where is a defined?", "Where is b defined?")


@pytest.fixture
def run(cli: Cli, workspace: Path) -> Callable[..., Ended]:
    def start(*more: str) -> Ended:
        arguments = ["-p", "Look.", "--model", "openai:m", "--workspace", str(workspace)]
        return cli.run("run", *arguments, "--output", "stream-json", *more)

    return start


def results(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["result"]["call_id"]: e["result"] for e in events if e["type"] == "tool_finished"}


def test_questions_are_answered_side_by_side_and_counted(
    cli: Cli, serve: Serve, workspace: Path, run: Callable[..., Ended]
) -> None:
    (workspace / "a.py").write_text("a = 1\n")

    def answer(request: Request) -> Reply:
        messages = request.json["messages"]
        if messages[1]["content"] in QUESTIONS:  # a sub-agent: its first message is the question
            assert "sub-agent" in messages[0]["content"]
            offered = {tool["function"]["name"] for tool in request.json["tools"]}
            assert "read_file" in offered and not offered & {"shell", "write_file", "delegate"}
            if messages[-1]["role"] == "tool":
                return Reply(text=f"In a.py:1, for {messages[1]['content']}")
            return Reply(calls=[("grep", {"pattern": "a = 1"})])
        if messages[-1]["role"] == "tool":
            return Reply(text="Found both.")
        calls = [("delegate", {"question": question}) for question in QUESTIONS]
        return Reply(text="I ask.", calls=calls)

    server = serve([answer] * 8)
    cli.server = server.url
    ended = run()
    assert ended.code == 0, ended.err
    assert len(server.requests) == 6
    answers = [result["content"] for result in results(ended.events).values()]
    assert sorted(answers) == [f"In a.py:1, for {question}" for question in QUESTIONS]
    used = [event for event in ended.events if event["type"] == "model_used"]
    assert [event["purpose"] for event in used] == ["delegate", "delegate"]
    own = sum(e["usage"]["input_tokens"] for e in ended.events if e["type"] == "model_answered")
    subs = sum(event["usage"]["input_tokens"] for event in used)
    assert subs > 0 and ended.events[-1]["usage"]["input_tokens"] == own + subs
    assert "grep" in str([e for e in ended.events if e["type"] == "tool_progress"])
    folder = cli.home / "data" / "sessions" / ended.events[0]["session_id"] / "agents"
    assert sorted(path.name for path in folder.iterdir()) == ["agent-1", "agent-2"]
    assert len(cli.run("sessions", "list").out.splitlines()) == 1


def test_a_sub_agent_that_edits_or_never_finishes_is_an_error(
    cli: Cli, serve: Serve, workspace: Path, run: Callable[..., Ended]
) -> None:
    def answer(request: Request) -> Reply:
        messages = request.json["messages"]
        if messages[1]["content"] == "Write it.":
            return Reply(calls=[("write_file", {"path": "x", "content": "x"})])
        if messages[-1]["role"] == "tool":
            return Reply(text="It could not.")
        return Reply(calls=[("delegate", {"question": "Write it."})])

    cli.server = serve([answer] * 40).url
    ended = run()
    assert ended.code == 0, ended.err
    (result,) = results(ended.events).values()
    assert result["outcome"] == "error" and "gave no answer" in result["content"]
    assert not (workspace / "x").exists()


def test_the_budget_of_a_session_bounds_its_sub_agents(
    cli: Cli, serve: Serve, run: Callable[..., Ended]
) -> None:
    def answer(request: Request) -> Reply:
        if request.json["messages"][1]["content"] == "Go on.":
            return Reply(calls=[("grep", {"pattern": "x"})])
        return Reply(calls=[("delegate", {"question": "Go on."})])

    cli.server = serve([answer] * 60).url
    ended = run("--budget-tokens", "6000")
    assert ended.code == 1
    usage = ended.events[-1]["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] <= 6_000


def test_sub_agents_side_by_side_share_what_is_left(
    cli: Cli, serve: Serve, run: Callable[..., Ended]
) -> None:
    def answer(request: Request) -> Reply:
        if request.json["messages"][1]["content"] != "Look.":
            return Reply(calls=[("grep", {"pattern": "x"})], usage=Usage(2000, 200))
        return Reply(calls=[("delegate", {"question": f"Go on, {n}."}) for n in range(8)])

    cli.server = serve([answer] * 200).url
    ended = run("--budget-tokens", "40000")
    assert ended.code == 1
    usage = ended.events[-1]["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] <= 40_000


def test_the_todo_list(cli: Cli, serve: Serve, run: Callable[..., Ended]) -> None:
    items = [{"text": "read", "state": "done"}, {"text": "write", "state": "in_progress"}]
    twice = [{**item, "state": "in_progress"} for item in items]
    lists: list[list[dict[str, str]]] = [items, twice, [{}]]
    calls = [("todo", {"items": one}) for one in lists]
    cli.server = serve([Reply(calls=calls), Reply(text="Done.")]).url
    ended = run()
    contents = [result["content"] for result in results(ended.events).values()]
    assert contents[0] == "[x] read\n[>] write"
    assert "more than one item is in progress" in contents[1]
    assert contents[2].startswith("error: ")
