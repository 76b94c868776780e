"""Whole runs with models that call tools in text, with the kernel and an HTTP server."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.events import Delta, ToolStarted
from agentcli.agent.kernel import Agent
from agentcli.agent.run import RunResult
from agentcli.config import load
from agentcli.errors import ConfigError
from agentcli.llm.client import ChatRequest, TextDelta
from agentcli.llm.registry import connect
from agentcli.llm.text_tools import TextTools
from agentcli.messages import Role, ToolDefinition, system, user, validate_history
from agentcli.settings import ProviderSettings, Settings
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import tool
from tests.server import Reply, ScriptedServer

FORMS = ("react", "json", "xml", "function")


async def add(context: ToolContext, a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: One.
        b: The other.
    """
    return str(a + b)


ADD = tool(add, ToolKind.READ)

CALLING = {
    "react": 'Thought: add\nAction: add\nAction Input: {"a": 1, "b": 2}',
    "json": 'Adding.\n```json\n{"tool": "add", "arguments": {"a": 1, "b": 2}}\n```',
    "xml": 'Adding.\n<tool name="add"><a>1</a><b>2</b></tool>',
    "function": "Adding.\n```call\nadd(a=1, b=2)\n```",
}
ANSWER = {"react": "Thought: known\nFinal Answer: It is 3."}


def client_of(server: ScriptedServer, form: str) -> TextTools:
    provider = ProviderSettings(base_url=server.url, api_key_env="", tools=form)  # type: ignore[arg-type]
    client = connect("mine:small", Settings(providers={"mine": provider}))
    assert isinstance(client, TextTools)
    return client


async def work(server: ScriptedServer, form: str) -> tuple[Agent, RunResult]:
    agent = Agent(client_of(server, form), [ADD])
    result = await agent.start("what is 1 + 2?").result()
    await agent.client.aclose()
    validate_history(tuple(result.state.history))
    assert server.faults == []
    return agent, result


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_is_run_and_its_result_read(form: str) -> None:
    script = [Reply(text=CALLING[form], piece=3), Reply(text=ANSWER.get(form, "It is 3."))]
    with ScriptedServer(script) as server:
        _, result = await work(server, form)
    assert result.task_result == "It is 3." and result.exit_code == 0
    assert [m.result.content for m in result.state.history if m.role is Role.TOOL] == ["3"]
    first, second = (request.json for request in server.requests)
    assert "tools" not in first and "tools" not in second
    prompt = first["messages"][0]
    assert prompt["role"] == "system" and "## add\nAdd two numbers." in prompt["content"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    called, told = second["messages"][-2:]
    assert called["role"] == "assistant" and "add" in called["content"]
    assert told["role"] == "user" and told["content"].endswith("3")
    if form == "react":
        assert "\nObservation:" in first["stop"] and told["content"] == "Observation: 3"


@pytest.mark.parametrize("form", FORMS)
async def test_calls_that_cannot_be_run_are_told(form: str) -> None:
    wrong = CALLING[form].replace("2", '"two"' if form != "xml" else "two")
    script = [Reply(text=wrong), Reply(text=ANSWER.get(form, "It is 3."))]
    with ScriptedServer(script) as server:
        _, result = await work(server, form)
    assert '"b" must be an integer' in server.requests[1].json["messages"][-1]["content"]
    assert result.exit_code == 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_that_the_token_limit_cut_never_runs(form: str) -> None:
    script = [Reply(text=CALLING[form], finish="length"), Reply(text=ANSWER.get(form, "Sorry."))]
    with ScriptedServer(script) as server:
        agent, _ = await work(server, form)
    assert not any(isinstance(e, ToolStarted) for e in agent.log.events)  # type: ignore[attr-defined]
    assert "token limit" in server.requests[1].json["messages"][-1]["content"]


async def test_text_is_shown_as_it_comes_and_calls_never_are() -> None:
    text = "I look first.\nThen I add.\n" + CALLING["json"].removeprefix("Adding.\n")
    shown: list[str] = []
    with ScriptedServer([Reply(text=text, piece=4), Reply(text="It is 3.")]) as server:
        agent = Agent(client_of(server, "json"), [ADD])
        async for event in agent.start("add"):
            if isinstance(event, Delta) and isinstance(event.delta, TextDelta) and event.step == 1:
                shown.append(event.delta.text)
        await agent.client.aclose()
    assert "".join(shown) == "I look first.\nThen I add.\n" and len(shown) >= 1


async def test_several_results_are_one_message_and_a_history_is_translated_once() -> None:
    two = '```json\n[{"tool": "add", "arguments": {"a": 1, "b": 2}}, {"tool": "add"}]\n```'
    script = [Reply(text=two)] * 3 + [Reply(text="done")]
    with ScriptedServer(script) as server:
        agent, result = await work(server, "json")
        client = agent.client
    assert result.step_count == 4 and isinstance(client, TextTools)
    asked = [request.json["messages"] for request in server.requests]
    for earlier, later in itertools.pairwise(asked):
        assert later[: len(earlier)] == earlier and len(later) == len(earlier) + 2
    assert asked[-1][-1]["content"].count("Result of add") == 2
    translated = [id(message) for message in client._sent]
    history = tuple(result.state.history)
    again = client._messages(ChatRequest(history, agent.tools.definitions()))
    assert [id(message) for message in again][: len(translated)] == translated


async def test_without_tools_nothing_is_told_of_any() -> None:
    with ScriptedServer([Reply(text='{"tool": "x"}')]) as server:
        agent = Agent(client_of(server, "json"))
        result = await agent.start("hi").result()
        await agent.client.aclose()
    assert result.task_result == '{"tool": "x"}'
    assert [m["role"] for m in server.requests[0].json["messages"]] == ["user"]


async def test_tokens_are_counted_of_what_is_sent() -> None:
    with ScriptedServer([]) as server:
        client = client_of(server, "xml")
        definition = ToolDefinition("t", "long " * 500, {"type": "object", "properties": {}})
        bare = ChatRequest((system("s"), user("u")))
        few = (await client.count_tokens(bare)).tokens
        many = (await client.count_tokens(ChatRequest(bare.messages, (definition,)))).tokens
        await client.aclose()
    assert many > few + 400


def test_the_setting_is_one_of_the_forms(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"providers\.mine\.tools"):
        from_toml(tmp_path, '[providers.mine]\nbase_url = "http://x"\ntools = "yaml"\n')
    settings = from_toml(tmp_path, '[providers.mine]\nbase_url = "http://x"\ntools = "xml"\n')
    assert settings.providers["mine"].tools == "xml"


def from_toml(folder: Path, text: str) -> Any:

    (folder / "config.toml").write_text(text)
    return load(user_file=folder / "config.toml", environ={})
