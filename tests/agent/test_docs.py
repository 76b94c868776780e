"""docs/conversations.md matches the code."""

from __future__ import annotations

import re
from pathlib import Path

from agentcli.agent.memory import memory_named
from agentcli.agent.processors.standard import STANDARD, processors_named

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "conversations.md").read_text("utf-8")


def test_the_processors_stand_in_their_order() -> None:
    (section,) = re.findall(r"\| Processor \| Does \|\n(.+?)\n\n", TEXT, re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == list(dict.fromkeys(name.partition("=")[0] for name in STANDARD))
    assert [processor.name for processor in processors_named(rows)] == rows


def test_the_memories_are_there() -> None:
    (section,) = re.findall(r"## Memory\n(.+?)\n## ", TEXT, re.DOTALL)
    for name in ("window", "summary", "search", "none"):
        memory_named(name)
        assert f"`{name}`" in section
