"""Critics review each step; the first that asks to retry or to stop decides."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentcli.agent.critics import ChecksPass, Judgement, ModelCritic, Review
from agentcli.agent.events import ModelUsed, Reviewed, Status, StopReason, Warned
from agentcli.agent.state import AgentState
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.messages import Usage
from agentcli.prompts import Prompts
from agentcli.tools.verify import verify
from tests.agent.conftest import Bench, Make
from tests.agent.test_kernel import WRITE, call
from tests.server import Reply, ScriptedServer


class Saying:
    """Returns the given reviews in order, then accepts every step."""

    def __init__(self, *reviews: Review) -> None:
        self._reviews = list(reviews)
        self.heard = 0

    async def review(self, state: AgentState) -> Review:
        self.heard += 1
        return self._reviews.pop(0) if self._reviews else Review()


RETRY = Review(Judgement.RETRY, "once more")
STOP = Review(Judgement.STOP, "that is enough")


def said(made: Bench) -> list[tuple[int, str, str]]:
    events = [event for event in made.log.events if isinstance(event, Reviewed)]
    return [(event.step, event.judgement, event.reason) for event in events]


class TestOrder:
    async def test_all_critics_run_and_the_first_objection_decides(self, bench: Make) -> None:
        critics = [Saying(), Saying(RETRY), Saying(STOP)]
        made = await bench(["one", "two"], critics=critics)
        result = await made.run()
        assert result.task_result == "two" and result.step_count == 2
        assert [critic.heard for critic in critics] == [2, 2, 2]
        assert said(made) == [(1, "retry", "once more"), (1, "stop", "that is enough")]

    async def test_a_stop_that_comes_first_ends_the_run(self, bench: Make) -> None:
        made = await bench(["one"], critics=[Saying(STOP), Saying(RETRY)])
        result = await made.run()
        assert result.state.stop is StopReason.CRITIC_STOP and result.exit_code == 1
        assert result.state.detail == "that is enough"

    async def test_a_retry_is_told_to_the_model_and_takes_a_step(self, bench: Make) -> None:
        made = await bench(["one", "two"], critics=[Saying(RETRY)])
        result = await made.run()
        assert made.server.requests[1].json["messages"][-1]["content"] == "once more"
        assert result.state.used.steps == 2

    async def test_a_failing_critic_is_reported_and_stops_nothing(self, bench: Make) -> None:
        class Broken:
            async def review(self, state: AgentState) -> Review:
                raise ValueError("oops")

        made = await bench(["one", "two"], critics=[Broken(), Saying(RETRY)])
        result = await made.run()
        assert result.task_result == "two"
        warnings = [event.text for event in made.log.events if isinstance(event, Warned)]
        assert warnings == ["critic Broken failed: oops"] * 2


class TestChecksPass:
    async def made(self, bench: Make, script: Sequence[object], rounds: int = 3) -> Bench:
        made: Bench = await bench(script, [WRITE])
        critic = ChecksPass(verify, made.agent.context, ["test -e ok", "true"], rounds)
        made.agent._reviewing._critics = (critic,)
        return made

    async def test_it_asks_for_another_step_until_the_checks_pass(self, bench: Make) -> None:
        writing = Reply(calls=[call("write", path="ok", text="")])
        made = await self.made(bench, ["done?", writing, "done!"])
        result = await made.run()
        assert result.task_result == "done!" and result.state.status is Status.SOLVED
        told = made.server.requests[1].json["messages"][-1]["content"]
        assert "These checks fail:" in told and "$ test -e ok" in told
        assert said(made)[-1] == (3, "continue", "the checks pass")

    async def test_it_gives_up_after_its_rounds(self, bench: Make) -> None:
        made = await self.made(bench, ["done"] * 3, rounds=2)
        result = await made.run()
        assert result.state.stop is StopReason.CRITIC_STOP and result.step_count == 3
        assert "test -e ok" in result.state.detail


class TestModelCritic:
    async def test_a_model_judges_the_final_answer(self, bench: Make) -> None:
        verdicts = [
            {"judgement": "retry", "reason": "The tests were not run."},
            {"judgement": "continue", "reason": "All is there."},
        ]
        replies = [
            Reply(text=f"```json\n{json.dumps(verdict)}\n```", usage=Usage(50, 0, 0, 5))
            for verdict in verdicts
        ]
        with ScriptedServer(replies) as judge:
            critic = ModelCritic(
                OpenAIChat(ModelInfo("judge", "openai"), "sk-test", judge.url),
                Prompts.standard().get("critic"),
            )
            script = [Reply(calls=[call("write", path="f", text="new")]), "Done.", "Tested."]
            made = await bench(script, [WRITE], critics=[critic])
            result = await made.run("write f")
            await critic.aclose()
        assert result.task_result == "Tested." and len(judge.requests) == 2
        system, question = judge.requests[0].json["messages"]
        assert "You judge the work" in system["content"]
        for part in ("write f", "[calls write]", "[write: ok]", "Done."):
            assert part in question["content"]
        assert made.server.requests[2].json["messages"][-1]["content"] == "The tests were not run."
        used = [event for event in made.log.events if isinstance(event, ModelUsed)]
        assert [(event.purpose, event.usage.total_tokens) for event in used] == [("critic", 55)] * 2
        assert result.state.usage.total_tokens == 3 * 110 + 2 * 55

    async def test_an_endless_or_unreadable_objection_cannot_block_the_end(
        self, bench: Make
    ) -> None:
        never = json.dumps({"judgement": "retry", "reason": "more"})
        with ScriptedServer([Reply(text=never)] * 3 + [Reply(text="Looks fine to me!")]) as judge:
            client = OpenAIChat(ModelInfo("judge", "openai"), "sk-test", judge.url)
            made = await bench(["1", "2", "3"], critics=[ModelCritic(client, "judge", retries=2)])
            assert (await made.run()).task_result == "3"
            made = await bench(["4"], critics=[ModelCritic(client, "judge")])
            assert (await made.run()).task_result == "4"
            await client.aclose()
        assert said(made) == [(1, "continue", "the critic gave no verdict that could be read")]
