"""Memories remind the model of what compaction has removed from its view."""

from __future__ import annotations

from typing import Any

import pytest

from agentcli.agent.events import Compacted, MessageAdded
from agentcli.agent.folding import fold_all
from agentcli.agent.memory import (
    MARK,
    Memory,
    SearchMemory,
    SummaryMemory,
    WindowMemory,
    memory_named,
)
from agentcli.agent.processors.selection import KeepLastN
from agentcli.agent.state import AgentState
from agentcli.errors import ConfigError
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.registry import tool
from tests.agent.conftest import Bench, Make
from tests.server import Reply

NEEDLE = "STAGING_PORT=54329"
TOPICS = ["sunsets", "staging database", "rivers", "birds", "clouds", "stones", "hills", "trees"]


async def look(context: ToolContext, topic: str) -> str:
    """Look something up."""
    found = NEEDLE if topic == "staging database" else f"nothing but {topic}"
    return f"About {topic}: {found}. " + "and so on " * 30


LOOK = tool(look, ToolKind.READ)
SCRIPT = [Reply(calls=[("look", {"topic": topic})]) for topic in TOPICS]


async def compacted(make: Make, memory: Memory, *after: Any) -> Bench:
    made = await make([*SCRIPT, "looked", *after], [LOOK], memory=memory, processors=[KeepLastN(3)])
    await made.agent.start("Look at everything").result()
    await made.agent.compact()
    assert NEEDLE not in str(list(made.agent.state.view))
    return made


def reminders(made: Bench) -> list[str]:
    texts = [e.message.text for e in made.log.events if isinstance(e, MessageAdded)]
    return [text for text in texts if text.startswith(MARK)]


@pytest.mark.parametrize("memory", [WindowMemory(7), SummaryMemory(), SearchMemory()], ids=type)
async def test_steps_in_view_are_not_repeated(bench: Make, memory: Memory) -> None:
    made = await bench([*SCRIPT, "looked"], [LOOK], memory=memory)
    await made.run("Look at everything about the staging database")
    assert reminders(made) == []


async def test_the_window_holds_the_last_steps_that_are_out_of_sight(bench: Make) -> None:
    made = await compacted(bench, WindowMemory(2), "fine", "again")
    await made.agent.start("Go on").result()
    (told,) = reminders(made)
    steps = [line for line in told.split("\n") if line.startswith("step ")]
    assert steps == ["step 5", "step 6"] and "About stones" in told
    await made.agent.start("And on").result()
    assert len(reminders(made)) == 1  # one reminder per compaction


async def test_the_summary_has_a_line_for_each_step_that_is_out_of_sight(bench: Make) -> None:
    made = await compacted(bench, SummaryMemory(), "fine")
    await made.agent.start("Go on").result()
    (told,) = reminders(made)
    lines = told.split("\n")[1:]
    assert [line.split(":")[0] for line in lines] == [f"step {n}" for n in range(1, 7)]
    assert lines[1].startswith('step 2: look {"topic": "staging database"}: ok, About staging')


async def test_the_search_finds_the_needle_when_it_is_asked_for(bench: Make) -> None:
    made = await compacted(bench, SearchMemory(1), "fine", "The port is 54329.")
    await made.agent.start("Tell me of the birds").result()
    await made.agent.start("Which port has the staging database?").result()
    first, second = reminders(made)
    assert "About birds" in first and NEEDLE not in first
    assert NEEDLE in second
    asked = made.server.requests[-1].json["messages"]  # the model sees the reminder
    assert NEEDLE in asked[-1]["content"]


async def test_the_search_ignores_unrelated_steps(bench: Make) -> None:
    made = await compacted(bench, SearchMemory(3, least=6.0), "fine")
    await made.agent.start("Xyzzy").result()
    assert reminders(made) == []


@pytest.mark.parametrize("name", ["window", "summary", "search"])
async def test_memories_are_kept_on_resume(bench: Make, name: str) -> None:
    memory = memory_named(name)
    assert memory is not None
    made = await compacted(bench, memory)
    state = fold_all(made.log.events)
    fresh = memory_named(name)
    again = await bench(["fine"], [LOOK], state=state, log=made.log, memory=fresh)
    await again.agent.start("Which port has the staging database?").result()
    (told,) = reminders(again)
    assert "staging database" in told
    state = fold_all(made.log.events)  # now the reminder itself is in view
    third = await bench(["fine"], [LOOK], state=state, log=made.log, memory=memory_named(name))
    await third.agent.start("Go on").result()
    assert len(reminders(third)) <= (2 if name == "search" else 1)


async def test_records_are_added_during_the_run(bench: Make) -> None:
    class Noting:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.seen: list[str] = []

        def append(self, record: Any) -> None:
            self.steps.append(record.step)

        async def retrieve(self, state: AgentState, observation: str) -> str:
            self.seen.append(observation)
            return "remember the milk" if len(self.seen) == 2 else ""

    memory = Noting()
    made = await bench([SCRIPT[0], "done"], [LOOK], memory=memory)
    await made.run("Look")
    assert memory.steps == [1, 2]
    assert memory.seen[0] == "Look" and memory.seen[1].startswith("About sunsets")
    assert made.server.requests[1].json["messages"][-1]["content"] == "remember the milk"
    assert not [e for e in made.log.events if isinstance(e, Compacted)]


def test_there_are_four_names() -> None:
    assert memory_named("none") is None
    with pytest.raises(ConfigError, match='unknown memory "elephant"'):
        memory_named("elephant")
