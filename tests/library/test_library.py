"""agentcli as a library: the public names, the example, and agents run from Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import agentcli
from agentcli import Agent, AgentModule, RunLimits, RunResult, ToolContext, ToolOutput, tool
from agentcli.agent.events import StopReason
from agentcli.agent.state import AgentState
from agentcli.environments.base import Nowhere
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Role
from agentcli.tools.base import Tool, ToolKind
from agentcli.tools.builtin import builtin_tools
from tests.server import Reply, ScriptedServer

ROOT = Path(__file__).resolve().parents[2]


def client(server: ScriptedServer) -> OpenAIChat:
    return OpenAIChat(ModelInfo("scripted", "openai"), "sk-test", server.url)


class TestPackage:
    @pytest.mark.parametrize("name", agentcli._HOMES)  # type: ignore[attr-defined]
    def test_a_name_is_loaded_when_it_is_used(self, name: str) -> None:
        assert getattr(agentcli, name).__name__ == name and name in dir(agentcli)

    def test_the_types_tell_of_the_same_names(self) -> None:
        tree = ast.parse((ROOT / "agentcli" / "__init__.pyi").read_text())
        imported = {
            alias.asname or alias.name: node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert imported == agentcli._HOMES  # type: ignore[attr-defined]
        assert (ROOT / "agentcli" / "py.typed").exists()

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = agentcli.nothing  # type: ignore[attr-defined]

    def test_importing_the_package_loads_nothing_of_it(self) -> None:
        program = "import sys, agentcli; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        own = [name for name in done.stdout.split() if name.startswith("agentcli")]
        assert own == ["agentcli"]


def test_the_example_is_short_and_runs(tmp_path: Path) -> None:
    example = ROOT / "examples" / "library.py"
    script = [Reply(calls=[("word_count", {"text": "to be or not to be"})]), Reply(text="Six.")]
    with ScriptedServer(script) as server:
        done = subprocess.run(
            [sys.executable, str(example), "openai:m"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(ROOT),
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": server.url,
            },
        )
        assert (done.stdout, done.returncode) == ("Six.\n", 0), done.stderr
        assert server.requests[1].json["messages"][-1]["content"] == "6"
    code = [line for line in example.read_text().splitlines() if line.strip()]
    body = code[code.index("@tool") : code.index('if __name__ == "__main__":')]
    assert len(body) <= 10


class TestTool:
    """``@tool`` makes a tool from a plain function."""

    async def call(self, made: Tool, arguments: str) -> ToolOutput | str:
        return await made.function(ToolContext(Nowhere()), **json.loads(arguments))

    async def test_plain_and_async_functions_with_and_without_the_context(self) -> None:
        @tool
        def plain(a: int, b: int = 2) -> int:
            """Add."""
            return a + b

        @tool(kind=ToolKind.READ, version="3", name="renamed")
        async def waiting(a: str) -> str:
            """Wait."""
            return a.upper()

        @tool
        def knowing(context: ToolContext, a: str) -> ToolOutput:
            """Know."""
            return ToolOutput(f"{type(context).__name__} {a}")

        assert plain.spec.parameters["required"] == ["a"] and plain.spec.description == "Add."
        assert (waiting.spec.name, waiting.spec.version) == ("renamed", "3")
        assert list(knowing.spec.parameters["properties"]) == ["a"]
        assert await self.call(plain, '{"a": 1}') == "3"
        assert await self.call(waiting, '{"a": "x"}') == "X"
        output = await self.call(knowing, '{"a": "x"}')
        assert isinstance(output, ToolOutput) and output.content == "ToolContext x"

    async def test_what_is_no_text_is_told_as_json(self) -> None:
        @tool
        def found() -> dict[str, list[int]]:
            """Find."""
            return {"lines": [1, 2]}

        assert await self.call(found, "{}") == '{"lines": [1, 2]}'


class Counting(AgentModule):
    """An agent that stops by its own condition after two tool results."""

    def build_system_prompt(self, state: AgentState) -> str:
        return "Count."

    def should_stop(self, state: AgentState) -> StopReason | None:
        results = [message for message in state.history if message.role is Role.TOOL]
        return StopReason.AGENT_CONDITION if len(results) == 2 else None


class TestAgentModule:
    """``run`` returns the answer to a task from synchronous code."""

    def test_it_gives_the_answer(self) -> None:
        with ScriptedServer([Reply(text="Five.")]) as server:
            assert Counting().run("count", client(server)) == "Five."
            assert [m["content"] for m in server.requests[0].json["messages"]] == [
                "Count.",
                "count",
            ]

    def test_it_can_return_the_whole_result(self) -> None:
        @tool
        def count() -> str:
            """Count."""
            return "1"

        calling = Reply(calls=[("count", {})])
        with ScriptedServer([calling, calling]) as server:
            result = Counting().run(
                "count",
                client(server),
                [count],
                return_state=True,
                limits=RunLimits(max_steps=9),
            )
        assert isinstance(result, RunResult) and result.state.stop is StopReason.AGENT_CONDITION
        assert result.step_count == 2 and result.exit_code == 0 and len(result.records) == 2

    def test_a_run_that_fails_is_told_and_not_raised(self) -> None:
        with ScriptedServer([Reply(status=401)]) as server:
            result = Counting().run("count", client(server), return_state=True)
        assert isinstance(result, RunResult) and result.exit_code == 3


async def test_an_agent_without_a_workspace_refuses_what_needs_one() -> None:
    reading = Reply(calls=[("read_file", {"path": "a"})])
    with ScriptedServer([reading, Reply(text="I cannot.")]) as server:
        agent = Agent(client(server), builtin_tools())
        result = await agent.start("read a").result()
        await agent.client.aclose()
    assert (
        result.records[0].results[0].content == "error: read_file needs files, not available here"
    )
    assert result.task_result == "I cannot." and result.state.session_id
