"""Defects of the reference systems that the other tests of the kernel would not catch."""

from __future__ import annotations

import ast
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.agent import records
from agentcli.agent.budget import RunLimits
from agentcli.agent.events import RetryScheduled, StopReason
from agentcli.agent.state import AgentState
from agentcli.environments.base import opened
from agentcli.environments.host import HostEnvironment
from agentcli.llm.client import ChatRequest, ModelInfo, chat
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Outcome, ToolCall, system, user
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry
from tests.agent.conftest import Make
from tests.agent.test_kernel import ECHO, call
from tests.server import Reply, ScriptedServer

PACKAGE = Path(__file__).resolve().parents[2] / "agentcli"


async def test_a_later_system_message_erases_no_prompt() -> None:
    """dodo's adapter kept only the last system message, so a summary replaced the prompt."""
    history = (system("the prompt"), user("hi"), system("a summary"), user("go on"))
    with ScriptedServer([Reply(text="done")]) as server:
        client = OpenAIChat(ModelInfo("m", "openai"), "sk-test", server.url)
        await chat(client, ChatRequest(history))
        await client.aclose()
        sent = server.requests[0].json["messages"]
    assert [message["content"] for message in sent] == ["the prompt", "hi", "a summary", "go on"]


@pytest.mark.parametrize(
    "words", ["500 Internal Server Error", "429 rate limit", "timeout", "connection reset"]
)
async def test_the_words_of_an_error_decide_nothing(bench: Make, words: str) -> None:
    """dodo retried any error whose text contained "500", even a rejection that quoted it."""
    made = await bench([Reply(status=400, message=f"you asked about: {words}"), "never"])
    result = await made.run()
    assert result.exit_code == 3 and len(made.server.requests) == 1
    assert not any(isinstance(event, RetryScheduled) for event in made.log.events)


def test_every_event_happens_somewhere() -> None:
    """Two of dodo's hooks were never called; this finds an event that nothing emits."""
    made = {
        node.func.id
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("events.py", "records.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {cls.__name__ for cls in records._KINDS.values()} - made == set()


async def test_a_limit_of_the_session_below_the_budget_is_no_error(bench: Make) -> None:
    """QitOS raised an exception from run() if a state's limit was lower than the budget."""
    looking = Reply(calls=[call("echo", text="x")])
    state = AgentState(session_id="s1", limits={"max_steps": 1, "tokens": 5})
    made = await bench([looking] * 3, [ECHO], state=state, limits=RunLimits(max_steps=3))
    made.log.events = [replace(made.agent.session)]
    result = await made.agent.start("look").result()
    assert result.state.stop is StopReason.BUDGET_STEPS and result.step_count == 3


def test_no_file_holds_the_whole_kernel() -> None:
    """QitOS's engine was one file of 1,577 lines."""
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (PACKAGE / "agent").rglob("*.py")
    }
    assert lengths["kernel.py"] <= 480
    assert {name: length for name, length in lengths.items() if length > 750} == {}


async def test_requests_only_ever_grow(bench: Make) -> None:
    """A kernel that rewrites the history pays for the whole conversation in every step."""
    looking = [Reply(calls=[call("echo", text=str(n))]) for n in range(3)]
    made = await bench([*looking, "done"], [ECHO])
    await made.run()
    asked = [request.json["messages"] for request in made.server.requests]
    for earlier, later in itertools.pairwise(asked):
        assert later[: len(earlier)] == earlier


async def test_a_neighbour_of_the_same_beginning_is_outside(tmp_path: Path) -> None:
    """QitOS compared string prefixes, so ``repo-other`` counted as part of ``repo``."""
    for name in ("repo", "repo-other"):
        (tmp_path / name).mkdir()
    secret = tmp_path / "repo-other" / "secret.txt"
    secret.write_text("secret\n")
    reading = ToolCall("c", "read_file", json.dumps({"path": str(secret)}))
    writing = ToolCall("c", "write_file", json.dumps({"path": str(secret), "content": "x"}))
    registry = Registry(builtin_tools())
    async with opened(HostEnvironment(tmp_path / "repo")) as confined:
        for call_ in (reading, writing):
            result = await registry.dispatch(call_, ToolContext(confined))
            assert result.outcome is Outcome.ERROR
    assert secret.read_text() == "secret\n"
    async with opened(HostEnvironment(tmp_path / "repo", wanted="none")) as free:
        result = await registry.dispatch(writing, ToolContext(free))
        assert result.outcome is Outcome.ERROR and "outside the workspace" in result.content
    assert secret.read_text() == "secret\n"
