"""Sessions recorded by the kernel, with the built-in tools on a real project.

``python -m tests.agent.recordings`` records them again, into ``recorded/NAME.jsonl``.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentcli.agent.events import Event, MemoryLog, SessionStarted
from agentcli.agent.kernel import Agent
from agentcli.agent.records import from_record, to_record
from agentcli.environments.base import opened
from agentcli.environments.host import HostEnvironment
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.tools.base import ToolContext
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry
from tests.running import pytest_ini
from tests.server import Reply, ScriptedServer

FOLDER = Path(__file__).parent / "recorded"

PROJECT = {
    "calc.py": "def low(a, b):\n    return max(a, b)\n",
    "test_calc.py": "from calc import low\n\n\ndef test_low():\n    assert low(1, 2) == 1\n",
    **pytest_ini(),
}


def tool(name: str, **arguments: Any) -> Reply:
    return Reply(calls=[(name, arguments)])


def replaced(old: str, new: str) -> Reply:
    return tool("search_replace", path="calc.py", old=old, new=new)


def shell(command: str) -> Reply:
    return tool("shell", command=command)


READ = tool("read_file", path="calc.py")
TESTS = tool("run_tests")
PYTEST = "python -m pytest -q -p no:cacheprovider"

SCENARIOS: dict[str, Sequence[Reply]] = {
    # The first fix is wrong; after the failing tests the model reads again and edits again.
    "repair": [
        tool("list_dir"),
        READ,
        TESTS,
        replaced("max(a, b)", "a + b"),
        TESTS,
        READ,
        replaced("a + b", "min(a, b)"),
        TESTS,
        READ,
        Reply(text="It takes the lesser one now."),
    ],
    # Every call uses the shell, whose kind does not tell the purpose of a call.
    "shell": [
        shell("ls -a | head -20"),
        shell("cat calc.py test_calc.py"),
        shell(f"{PYTEST} 2>&1 | tail -5; test ${{PIPESTATUS[0]}} = 0"),
        shell("sed -i 's/max/min/' calc.py && git diff 2>/dev/null; true"),
        shell(f"cd . && {PYTEST}"),
        Reply(text="Done."),
    ],
    # A failed edit does not count as an edit, and a check after it proves nothing.
    "missed": [
        tool("grep", pattern="def low"),
        replaced("minimum(a, b)", "min(a, b)"),
        TESTS,
        READ,
        replaced("max(a, b)", "min(a, b)"),
        TESTS,
        Reply(text="Done."),
    ],
    # After the tests pass, the next part of the task starts with exploring again.
    "two_parts": [
        READ,
        replaced("max(a, b)", "min(a, b)"),
        TESTS,
        Reply(calls=[("list_dir", {}), ("grep", {"pattern": "low"}), ("glob", {"pattern": "*"})]),
        READ,
        tool("write_file", path="high.py", content="def high(a, b):\n    return max(a, b)\n"),
        shell("python -c 'import high; print(high.high(1, 2))'"),
        Reply(text="Both are done."),
    ],
}


async def record(name: str, workspace: Path) -> list[Event]:
    """Run one scenario through the kernel in ``workspace``."""
    for path, text in PROJECT.items():
        (workspace / path).write_text(text)
    log = MemoryLog()
    async with (
        ScriptedServer(SCENARIOS[name]) as server,
        opened(HostEnvironment(workspace)) as environment,
    ):
        client = OpenAIChat(ModelInfo("scripted", "openai"), "sk-test", server.url)
        agent = Agent(
            client,
            Registry(builtin_tools()),
            ToolContext(environment),
            log,
            SessionStarted(name, str(workspace), "scripted", "auto", "none", (), "0"),
        )
        await agent.start("make the tests pass").result()
        await client.aclose()
        assert server.faults == []
    return log.events


def recorded(name: str) -> Iterator[Event]:
    """The events of a recording."""
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield from_record(json.loads(line))


def _main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder).resolve()
            events = asyncio.run(record(name, workspace))
            lines = [json.dumps(to_record(event), ensure_ascii=False) for event in events]
            text = "\n".join(lines).replace(str(workspace), "/home/me/project")
            (FOLDER / f"{name}.jsonl").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
