"""The phase of the work follows from the purpose, order and outcome of the tool calls."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agentcli.agent.events import Event, MemoryLog, Phase, PhaseChanged, TaskGiven
from agentcli.agent.folding import fold_all
from agentcli.agent.hooks import Hook
from agentcli.agent.phase import Progress, after
from agentcli.agent.state import AgentState
from agentcli.agent.stream import Stream
from agentcli.messages import Outcome
from agentcli.tools.base import ToolKind
from tests.agent.conftest import Make
from tests.agent.recordings import SCENARIOS, record, recorded
from tests.agent.test_kernel import ECHO, SHELL, WRITE, call
from tests.server import Reply

# The phases of each recorded session, from "explore" on.
PHASES = {
    "repair": ["discover", "edit", "validate", "discover", "edit", "validate"],
    "shell": ["discover", "edit", "validate"],
    "missed": ["edit", "explore", "discover", "edit", "validate"],
    "two_parts": [
        *("discover", "edit", "validate"),
        *("explore", "discover", "edit", "validate"),
    ],
}


def walk(*calls: str) -> list[str]:
    """The phase after each call; a call is written ``kind`` or ``kind:outcome``."""
    progress, seen = Progress(), []
    for kind, _, outcome in (text.partition(":") for text in calls):
        progress = after(progress, ToolKind(kind), Outcome(outcome or "ok"))
        seen.append(progress.phase.value)
    return seen


def moves(events: list[Event]) -> list[str]:
    return [event.phase.value for event in events if isinstance(event, PhaseChanged)]


class TestRecordedSessions:
    @pytest.mark.parametrize("name", SCENARIOS)
    async def test_the_phases_are_those_of_the_work(self, name: str) -> None:
        """Replaying a recording without its phase changes produces the expected phases."""
        log = MemoryLog()
        stream = Stream(log, (), AgentState())
        for event in recorded(name):
            if not isinstance(event, PhaseChanged):
                await stream.emit(event)
        assert moves(log.events) == PHASES[name]

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_no_phase_lasts_from_begin_to_end(self, name: str) -> None:
        state = fold_all(recorded(name))
        phases = {record.phase for record in state.records}
        assert len(phases) >= 3 and state.phase.value == PHASES[name][-1]

    async def test_the_kernel_records_the_same_today(self, tmp_path: Path) -> None:
        assert moves(await record("repair", tmp_path)) == PHASES["repair"]


class TestOrder:
    def test_checks_before_any_edit_discover(self) -> None:
        assert walk("search", "read", "check:failed") == ["explore", "discover", "discover"]

    def test_checks_after_an_edit_validate(self) -> None:
        assert walk("read", "edit", "check") == ["discover", "edit", "validate"]

    def test_commands_validate_only_what_was_changed(self) -> None:
        calls = ("run", "read", "run", "edit", "run")
        assert walk(*calls) == ["explore", "discover", "discover", "edit", "validate"]

    def test_a_plan_comes_before_the_edit(self) -> None:
        assert walk("plan", "edit", "plan") == ["discover", "edit", "edit"]

    def test_a_few_looks_belong_to_the_edit_and_more_do_not(self) -> None:
        calls = ("edit", "read", "search", "read", "edit")
        assert walk(*calls) == ["edit", "edit", "edit", "discover", "edit"]


class TestOutcomes:
    def test_failing_checks_lead_back(self) -> None:
        calls = ("edit", "check:failed", "read", "edit", "check:failed", "edit", "check")
        phases = ["edit", "validate", "discover", "edit", "validate", "edit", "validate"]
        assert walk(*calls) == phases

    def test_looking_again_after_failing_checks_is_discovering(self) -> None:
        assert walk("edit", "check:failed", "search")[-1] == "discover"

    def test_a_check_that_passed_closes_the_round(self) -> None:
        calls = ("edit", "check", "read", "search", "search", "check")
        phases = ["edit", "validate", "validate", "validate", "explore", "discover"]
        assert walk(*calls) == phases

    def test_a_second_check_of_the_same_change_still_validates(self) -> None:
        assert walk("edit", "check", "check:failed", "check") == ["edit", *["validate"] * 3]

    @pytest.mark.parametrize("outcome", ["error", "denied", "skipped", "cancelled"])
    def test_edits_that_change_nothing_do_not_count(self, outcome: str) -> None:
        assert walk("read", f"edit:{outcome}", "check") == ["discover"] * 3

    @pytest.mark.parametrize("kind", ToolKind)
    def test_calls_that_never_ran_do_not_move_the_phase(self, kind: ToolKind) -> None:
        for outcome, phase in itertools.product(("denied", "skipped", "cancelled"), Phase):
            before = Progress(phase, unproven=True)
            assert after(before, kind, Outcome(outcome)) == before


def test_from_every_phase_every_other_can_be_reached() -> None:
    kinds = [(kind, outcome) for kind in ToolKind for outcome in (Outcome.OK, Outcome.FAILED)]
    for start in (Progress(phase, unproven) for phase in Phase for unproven in (True, False)):
        reached, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            for kind, outcome in kinds:
                there = after(here, kind, outcome)
                if there not in reached and there.looks <= 4:
                    reached.add(there)
                    waiting.append(there)
        assert {progress.phase for progress in reached} == set(Phase)


async def test_hooks_are_told_with_the_state_that_it_led_to(bench: Make) -> None:
    told: list[tuple[Phase, Phase, Phase]] = []

    class Watcher(Hook):
        async def on_event(self, event: Event, state: AgentState) -> None:
            if isinstance(event, PhaseChanged):
                told.append((event.previous, event.phase, state.phase))

    script = [
        Reply(calls=[call("echo", text="x")]),
        Reply(calls=[call("write", path="f", text="x"), call("write", path="g", text="x")]),
        Reply(calls=[call("shell", command="true")]),
        "done",
    ]
    agent = await bench(script, [ECHO, WRITE, SHELL], hooks=[Watcher()])
    await agent.run()
    order = [Phase.EXPLORE, Phase.DISCOVER, Phase.EDIT, Phase.VALIDATE]
    assert told == [(old, new, new) for old, new in itertools.pairwise(order)]


async def test_a_new_task_begins_with_exploring(bench: Make) -> None:
    script = [Reply(calls=[call("write", path="f", text="x")]), "done", "next"]
    agent = await bench(script, [WRITE])
    await agent.agent.start("write").result()
    await agent.agent.start("and now?").result()
    assert moves(agent.log.events) == ["edit", "explore"]
    tasks = [n for n, event in enumerate(agent.log.events) if isinstance(event, TaskGiven)]
    assert isinstance(agent.log.events[tasks[1] + 1], PhaseChanged)
