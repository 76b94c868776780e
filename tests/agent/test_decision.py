"""Decisions made by an agent's own code: they join the history; one candidate is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from agentcli.agent.decision import Act, Branch, Candidate, Decision, Final, Wait
from agentcli.agent.events import BranchTaken, Decided, StopReason
from agentcli.agent.module import AgentModule
from agentcli.agent.state import AgentState
from agentcli.messages import Role, ToolCall
from tests.agent.conftest import Make
from tests.agent.test_kernel import ECHO, call
from tests.server import Reply


class Deciding(AgentModule):
    """Returns the given decisions, one per step; None asks the model."""

    def __init__(self, *decisions: Decision | None) -> None:
        self._decisions = list(decisions)

    async def decide(self, state: AgentState) -> Decision | None:
        return self._decisions.pop(0)


def echo(text: str, call_id: str = "c") -> Act:
    return Act((ToolCall(call_id, "echo", f'{{"text": "{text}"}}'),))


async def test_its_calls_and_results_are_read_by_the_model(bench: Make) -> None:
    module = Deciding(echo("one"), echo("two"), None)
    made = await bench(["I saw both."], [ECHO], module=module)
    result = await made.run()
    assert result.task_result == "I saw both."
    asked = made.server.requests[0].json["messages"]
    assert [message["role"] for message in asked] == ["user", *["assistant", "tool"] * 2]
    assert [message.get("content") for message in asked if message["role"] == "tool"] == [
        "one",
        "two",
    ]
    ids = [c.id for message in result.state.history for c in message.calls]
    assert len(set(ids)) == 2  # although both decisions used the id "c"


async def test_its_final_answer_ends_the_run_without_a_model(bench: Make) -> None:
    made = await bench([], module=Deciding(Final("known already")))
    result = await made.run()
    assert result.task_result == "known already" and result.state.stop is StopReason.FINAL
    assert result.state.history[-1].role is Role.ASSISTANT and made.server.requests == []


async def test_waiting_is_a_step_in_which_nothing_happens(bench: Make) -> None:
    made = await bench(["go"], [ECHO], module=Deciding(Wait(), Wait(), None))
    result = await made.run()
    assert result.step_count == 3 and len(result.state.history) == 2
    assert [record.decision for record in result.records][:2] == [None, None]


class TestBranch:
    async def test_the_best_candidate_is_taken_and_of_equals_the_first(self, bench: Make) -> None:
        candidates = (
            Candidate(echo("low"), 0.1),
            Candidate(echo("high"), 0.9),
            Candidate(Final("as high"), 0.9),
        )
        made = await bench(["done"], [ECHO], module=Deciding(Branch(candidates), None))
        result = await made.run()
        assert [m.result.content for m in result.state.history if m.role is Role.TOOL] == ["high"]
        taken = [event for event in made.log.events if isinstance(event, BranchTaken)]
        assert taken == [BranchTaken(1, 1, (0.1, 0.9, 0.9))]

    async def test_it_may_lead_to_the_end(self, bench: Make) -> None:
        candidates = (Candidate(echo("on"), 0.0), Candidate(Final("enough"), 1.0))
        made = await bench([], [ECHO], module=Deciding(Branch(candidates)))
        assert (await made.run()).task_result == "enough"
        assert [e.message.text for e in made.log.events if isinstance(e, Decided)] == ["enough"]


@pytest.mark.parametrize("make", [lambda: Act(()), lambda: Final(" \n"), lambda: Branch(())])
def test_a_decision_says_something(make: Any) -> None:
    with pytest.raises(ValueError, match=r"at least one|empty"):
        make()


async def test_a_decision_that_says_nothing_is_a_recovery(bench: Make) -> None:
    class Empty(AgentModule):
        async def decide(self, state: AgentState) -> Decision | None:
            return Final("") if state.recoveries == 0 else None

    made = await bench([Reply(calls=[call("echo", text="x")]), "done"], [ECHO], module=Empty())
    result = await made.run()
    assert result.task_result == "done" and result.state.recoveries == 1
