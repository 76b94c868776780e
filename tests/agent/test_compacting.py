"""Compaction of long conversations: near the limit, after a refusal, on request, and undone."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from agentcli.agent.budget import ContextLimits, ContextRules, RunLimits
from agentcli.agent.events import (
    Compacted,
    CompactionUndone,
    Event,
    MemoryLog,
    ModelChanged,
    ModelUsed,
    PrefixBroken,
    StopReason,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.kernel import Agent
from agentcli.agent.processors.base import NOTE, SUMMARY, Conversation, Item
from agentcli.agent.processors.standard import processors_named
from agentcli.errors import BadRequestError, UsageError
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import ChatRequest, ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.wire_cache import Encoded
from agentcli.messages import Image, Role, Usage, validate_history
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput
from agentcli.tools.registry import tool
from tests.agent.conftest import Bench, Make
from tests.server import Reply, Request, ScriptedServer

WINDOW = 8000
CHEAP = processors_named(["truncate_long_tools=200", "keep_relevant", "keep_last_n"])


async def look(context: ToolContext, at: str) -> str:
    """Look at something."""
    return f"{at}: " + "some text with words in it. " * 60


LOOK = tool(look, ToolKind.READ)


def counted(request: Request) -> int:
    """The provider's token count in these tests: one token per four bytes."""
    return len(request.raw) // 4


def answering(steps: int, *, text: str = "done") -> Any:
    """A model that calls ``look`` ``steps`` times, and summarizes on request."""
    calls = iter(range(steps))

    def reply(request: Request) -> Reply:
        usage = Usage(input_tokens=counted(request), output_tokens=20)
        if not request.json.get("tools"):
            return Reply(text="NOTES: it was looked at many things", usage=usage)
        number = next(calls, None)
        if number is None:
            return Reply(text=text, usage=usage)
        return Reply(calls=[("look", {"at": f"place {number}"})], usage=usage)

    return reply


async def long_run(
    make: Make, steps: int = 30, window: int | None = WINDOW, **options: Any
) -> Bench:
    made = await make([answering(steps)] * (2 * steps + 2), [LOOK], **options)
    client = made.agent.client
    assert isinstance(client, OpenAIChat)
    client.info = dataclasses.replace(client.info, context_window=window)
    return made


def of(made: Bench, kind: type[Event]) -> list[Any]:
    return [event for event in made.log.events if isinstance(event, kind)]


async def test_a_conversation_longer_than_the_window_goes_on(bench: Make) -> None:
    made = await long_run(bench)
    result = await made.run("look around")
    assert result.state.stop is StopReason.FINAL and result.step_count == 31
    asked = [counted(request) for request in made.server.requests]
    assert max(asked) < WINDOW < sum(len(m.text) for m in result.state.history) + 31 * 400
    compacted = of(made, Compacted)
    assert 1 <= len(compacted) <= 31 / 4  # compaction is rare,
    for event in compacted:  # frees much at once,
        assert event.cause == "near the limit"
        assert event.tokens_after < 0.6 * event.tokens_before
    for request in made.server.requests:  # and keeps the task
        texts = [m.get("content") for m in request.json["messages"]]
        assert "look around" in texts or not request.json.get("tools")


class Uncounted(AnthropicMessages):
    """A client whose proxy does not offer the address for counting tokens."""

    async def _counted(self, request: ChatRequest, history: Encoded) -> int | None:
        raise BadRequestError("no such path")


@pytest.mark.parametrize("model", [AnthropicMessages, Uncounted])
async def test_near_the_limit_the_provider_is_asked_to_count(
    model: type[AnthropicMessages],
) -> None:
    log = MemoryLog()
    async with ScriptedServer([answering(12)] * 13) as server:
        info = ModelInfo("claude-sonnet-5-5", "anthropic", context_window=WINDOW)
        agent = Agent(model(info, "sk-test", server.root), [LOOK], log=log, processors=CHEAP)
        result = await agent.start("look around").result()
        await agent.client.aclose()
    counts = {counted(each) for each in server.requests if each.path.endswith("/count_tokens")}
    compacted = [event.tokens_before for event in log.events if isinstance(event, Compacted)]
    assert result.task_result == "done" and compacted and server.faults == []
    assert set(compacted) <= counts if model is AnthropicMessages else not counts


async def test_the_journal_keeps_everything(bench: Make) -> None:
    made = await long_run(bench)
    result = await made.run("look around")
    state = result.state
    results = [m.result.content for m in state.history if m.role is Role.TOOL]
    assert len(results) == 30 and all(len(content) > 1000 for content in results)
    assert len(state.view) < len(state.history)
    assert fold_all(made.log.events) == state


async def test_between_compactions_the_prefix_stands(bench: Make) -> None:
    made = await long_run(bench, processors=CHEAP)
    await made.run("look around")
    breaks = 0
    for one, two in zip(made.server.requests, made.server.requests[1:], strict=False):
        before, after = one.json["messages"], two.json["messages"]
        breaks += after[: len(before)] != before
    assert breaks == len(of(made, Compacted))
    assert [event.cause for event in of(made, PrefixBroken)] == ["compaction"] * breaks
    assert all(0 < event.tokens_lost < WINDOW for event in of(made, PrefixBroken))


async def test_summaries_count_in_the_usage(bench: Make) -> None:
    """The reference left the cost of summaries out of its totals."""
    names = ["summarize_older_than_n=2"]
    made = await long_run(bench, processors=processors_named(names))
    result = await made.run("look around")
    used = of(made, ModelUsed)
    assert used and {event.purpose for event in used} == {"summary"}
    assert result.state.usage.input_tokens == sum(map(counted, made.server.requests))
    assert any(m.text.startswith(f"{SUMMARY}NOTES") for m in result.state.view)
    assert sum(r.usage.total_tokens for r in result.records) == result.state.usage.total_tokens
    prompts = [
        r.json["messages"][0]["content"] for r in made.server.requests if "tools" not in r.json
    ]
    assert prompts and all("keep the notes of a programmer" in prompt for prompt in prompts)


async def test_after_a_refusal_it_is_compacted_once_and_asked_again(bench: Make) -> None:
    refusals: list[int] = []

    def refusing(reply: Any) -> Any:
        def answer(request: Request) -> Reply:
            if counted(request) > 4000:
                refusals.append(counted(request))
                return Reply(status=400, code="context_length_exceeded")
            answered: Reply = reply(request)
            return answered

        return answer

    made = await bench([refusing(answering(30))] * 80, [LOOK], processors=CHEAP)
    result = await made.run("look around")  # with an unknown context window
    assert result.state.stop is StopReason.FINAL and len(refusals) == 1
    first, *rest = of(made, Compacted)
    assert first.cause == "beyond the context window"
    assert rest and {event.cause for event in rest} == {"near the limit"}
    # A resumed session knows the window learnt from the refusal, but only for the same model.
    learnt = made.agent.context_window
    again = await bench([], state=fold_all(made.log.events))
    assert again.agent.context_window == learnt is not None
    other = fold_all([ModelChanged(1, "openai:other", "")], again.agent.state)
    assert (await bench([], state=other)).agent.context_window is None


async def test_a_repeated_refusal_ends_the_run(bench: Make) -> None:
    made = await bench([Reply(status=400, code="context_length_exceeded")] * 5, [LOOK])
    result = await made.run("look around")
    assert result.state.stop is StopReason.PROVIDER_FAILED
    assert result.state.error == "ContextWindowError" and len(made.server.requests) == 1


async def shoot(context: ToolContext) -> ToolOutput:
    """Take a picture."""
    return ToolOutput("[image a.png]", images=(Image(b"\x89PNG", "image/png", "a.png"),))


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_images_that_are_refused_are_left_out(status: int, bench: Make) -> None:
    """A provider accepts fewer of them than agentcli, or its model accepts none."""

    def reply(request: Request) -> Reply:
        refused = request.raw.count(b'"image_url":{') > 1
        return Reply(status=status) if refused else Reply(text="seen")

    shots = Reply(calls=[("shoot", {}), ("shoot", {})])
    made = await bench([shots, reply, reply], [tool(shoot, ToolKind.READ)], processors=CHEAP)
    assert isinstance(made.agent.client, OpenAIChat)
    made.agent.client.info = dataclasses.replace(made.agent.client.info, images=True)
    result = await made.run("look", images=[Image(b"GIF89a", "image/gif", "mine.gif")])
    assert (result.state.stop, result.task_result) == (StopReason.FINAL, "seen")
    (compacted,) = of(made, Compacted)
    assert compacted.cause == "it was refused with images"
    last = made.server.requests[-1].raw
    assert b"image/gif" in last and b"image/png" not in last and b"[image" in last
    resumed = fold_all(made.log.events)
    assert [m.result.images for m in resumed.view if m.role is Role.TOOL] == [(), ()]


async def test_a_request_that_is_refused_also_without_images_ends_the_run(bench: Make) -> None:
    script = [Reply(calls=[("shoot", {})]), *[Reply(status=400)] * 2]
    made = await bench(script, [tool(shoot, ToolKind.READ)])
    assert isinstance(made.agent.client, OpenAIChat)
    made.agent.client.info = dataclasses.replace(made.agent.client.info, images=True)
    result = await made.run("look")
    assert result.state.stop is StopReason.PROVIDER_FAILED
    assert result.state.error == "BadRequestError" and len(made.server.requests) == 3


async def test_a_conversation_that_cannot_shrink_ends_with_what_was_tried(bench: Make) -> None:
    made = await long_run(bench, window=1000, processors=CHEAP)
    result = await made.run("word " * 4000)
    assert made.server.requests == []
    assert (result.state.stop, result.exit_code) == (StopReason.BUDGET_TOKENS, 1)
    assert result.state.error == "BudgetError"
    assert "750 are allowed (3 ways to shorten it were tried)" in result.state.detail


async def test_a_pass_that_does_not_shrink_is_not_counted(bench: Make) -> None:
    names = ["keep_last_n=500", "condense_results=500", "keep_last_n=4"]
    made = await long_run(bench, processors=processors_named(names))
    await made.run("look around")
    assert {event.passes for event in of(made, Compacted)} == {("keep_last_n",)}


async def test_an_ineffective_compaction_is_not_tried_at_every_step(bench: Make) -> None:
    class Vain:
        name = "vain"
        tries = 0

        async def process(self, conversation: Conversation) -> tuple[Item, ...]:
            self.tries += 1
            return conversation.items

    vain = Vain()
    rules = ContextRules(soft_tokens=1000, hard_tokens=50_000)
    made = await long_run(bench, 20, 100_000, processors=[vain], rules=rules)
    await made.run("look around")
    assert not of(made, Compacted)
    assert 3 < vain.tries < 15  # 18 steps are beyond the soft limit


async def test_preview_keep_and_undo(bench: Make) -> None:
    made = await long_run(bench, 12, 100_000, processors=CHEAP)
    result = await made.run("look around")
    before = tuple(result.state.view)
    planned = await made.agent.compact(preview=True, keep=[5])
    assert tuple(made.agent.state.view) == before and not of(made, Compacted)
    assert planned.dropped and planned.tokens_after < planned.tokens_before / 2
    assert planned.scores  # from the relevance processor
    done = await made.agent.compact(keep=[5])
    assert done == planned
    view = tuple(made.agent.state.view)
    validate_history(view)
    assert before[5] in view and before[1] in view and len(view) < len(before)
    assert any(message not in view for message in before[2:10])
    undone = await made.agent.uncompact()
    assert (undone.tokens_before, undone.tokens_after) == (done.tokens_after, done.tokens_before)
    assert tuple(made.agent.state.view) == before
    assert fold_all(made.log.events) == made.agent.state
    with pytest.raises(UsageError, match="nothing was compacted"):
        await made.agent.uncompact()
    with pytest.raises(UsageError, match="there is no message 500"):
        await made.agent.compact(keep=[500])
    assert [type(event) for event in made.log.events[-2:]] == [Compacted, CompactionUndone]


async def test_a_session_that_was_killed_inside_a_call_can_be_compacted(bench: Make) -> None:
    made = await long_run(bench, 12, 100_000, processors=CHEAP)
    await made.run("look around")
    killed = made.log.events[: made.kinds().index("ToolStarted", 60) + 1]
    state = fold_all(killed)
    assert state.pending
    log = MemoryLog()
    log.events = killed
    again = await bench([], [LOOK], state=state, log=log, processors=CHEAP)
    assert (await again.agent.compact()).dropped
    validate_history(tuple(again.agent.state.view))
    assert fold_all(log.events) == again.agent.state


async def test_an_earlier_compaction_comes_back_when_the_later_is_undone(bench: Make) -> None:
    made = await long_run(bench, processors=CHEAP)
    await made.run("look around")
    views = [tuple(made.agent.state.view)]
    await made.agent.compact()
    await made.agent.uncompact()
    assert tuple(made.agent.state.view) == views[0]
    assert any(m.text.startswith(NOTE) for m in views[0])


async def test_after_a_compaction_a_resumed_session_asks_the_same(bench: Make) -> None:
    made = await long_run(bench, 12, 100_000, processors=CHEAP)
    await made.run("look around")
    await made.agent.compact()
    state = fold_all(made.log.events)
    again = await bench([answering(0)], [LOOK], state=state, log=made.log)
    await again.agent.start("and now?").result()
    asked = again.server.requests[0].json["messages"]
    assert len(asked) == len(made.agent.state.view) + 1
    assert len(json.dumps(asked)) < len(json.dumps(made.server.requests[-1].json["messages"])) / 2


async def test_an_unknown_window_is_looked_up_in_the_background(bench: Make) -> None:
    sent_before: list[int] = []

    def window_of(info: ModelInfo) -> int:
        sent_before.append(len(made.server.requests))
        return WINDOW

    made = await long_run(bench, 25, None, processors=CHEAP, window_of=window_of)
    client = made.agent.client
    assert isinstance(client, OpenAIChat)
    client.info = dataclasses.replace(client.info, priced_by="somebody")
    await made.run("look around")
    assert made.agent.context_window == WINDOW and of(made, Compacted)
    assert len(sent_before) == 1 and sent_before[0] >= 1  # slow, so not before the first request
    assert max(map(counted, made.server.requests)) < WINDOW


async def test_a_client_that_fits_conversations_itself_is_left_alone(bench: Make) -> None:
    made = await long_run(bench, 20, processors=CHEAP)
    client = made.agent.client
    assert isinstance(client, OpenAIChat)
    client.info = dataclasses.replace(client.info, fits_itself=True)
    await made.run("look around")
    assert not of(made, Compacted)
    assert max(map(counted, made.server.requests)) > WINDOW


def test_limits_follow_from_the_window() -> None:
    rules = ContextRules()
    assert rules.limits(200_000, 32_000) == ContextLimits(134_400, 168_000, 67_200)
    assert rules.limits(8_000, 32_000) == ContextLimits(4_800, 6_000, 2_400)
    assert rules.limits(None, 32_000) is None
    said = ContextRules(soft_tokens=12_000, hard_tokens=16_000, reserve_tokens=2_000)
    assert said.limits(None, 1) == ContextLimits(12_000, 16_000, 6_400)
    assert said.limits(10_000, 1) == ContextLimits(8_000, 8_000, 3_200)
    assert said.limits(200_000, 1) == ContextLimits(12_000, 16_000, 6_400)


async def test_explicit_limits_hold_in_a_larger_window(bench: Make) -> None:
    rules = ContextRules(soft_tokens=2000, hard_tokens=3000)
    made = await long_run(bench, 20, 200_000, processors=CHEAP, rules=rules)
    await made.run("look around")
    assert max(map(counted, made.server.requests)) <= 3000
    assert of(made, Compacted)[0].tokens_before > 2000


async def test_the_run_s_budget_holds_for_summaries_too(bench: Make) -> None:
    names = ["summarize_older_than_n=2"]
    made = await long_run(
        bench, processors=processors_named(names), limits=RunLimits(tokens=40_000)
    )
    result = await made.run("look around")
    assert result.state.stop is StopReason.BUDGET_TOKENS
    asked = sum(map(counted, made.server.requests))
    assert asked < result.state.usage.total_tokens <= 40_000
    assert [m for m in result.state.view if m.text.startswith(SUMMARY)]
