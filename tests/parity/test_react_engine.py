"""System B of the reference, row by row: this kernel does what its ReAct engine does.

Each test covers one row of the table in ``docs/parity.md``, in the same order. The details are
tested next to the code.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from typing import Any

import pytest

from agentcli.agent.budget import ContextRules, RunLimits
from agentcli.agent.events import (
    Compacted,
    Delta,
    Event,
    Phase,
    PhaseChanged,
    RetryScheduled,
    SoftCapReached,
    StopReason,
    StreamReset,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.folding import fold_all
from agentcli.agent.gate import PlanGate
from agentcli.agent.hooks import Hook
from agentcli.agent.processors.standard import STANDARD, processors_named
from agentcli.agent.records import kind
from agentcli.agent.recovery import TOOL_RETRIES, Chance, RetryConfig, backoff_s, chance, delay_s
from agentcli.agent.state import AgentState
from agentcli.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadRequestError,
    BudgetError,
    ConnectError,
    ContentFilterError,
    ContextWindowError,
    DeadlineError,
    OverloadedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RetryExhaustedError,
    ServerError,
)
from agentcli.llm.anthropic import AnthropicMessages
from agentcli.llm.client import (
    ChatRequest,
    ModelInfo,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
    chat,
)
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.openai_responses import OpenAIResponses
from agentcli.messages import (
    Outcome,
    Role,
    ToolCall,
    ToolResult,
    Usage,
    assistant,
    system,
    user,
    validate_history,
)
from agentcli.messages import tool as tool_message
from agentcli.prompts import Prompts
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput
from agentcli.tools.plan import plan_tool
from agentcli.tools.registry import tool
from tests.agent.conftest import Bench, Make
from tests.agent.test_kernel import ECHO, SHELL, WRITE, call
from tests.server import Reply, ScriptedServer

ECHOING = Reply(calls=[call("echo", text="x")])


def told(made: Bench, *classes: type[Event]) -> list[Any]:
    return [event for event in made.log.events if isinstance(event, classes)]


async def test_state(bench: Make) -> None:
    """``step`` counts only successful cycles; retries and failed steps use no step budget."""
    script = [Reply(status=503), ECHOING, Reply(status=500), ECHOING, "done"]
    made = await bench(script, [ECHO], limits=RunLimits(max_steps=3, tokens=100_000))
    state = (await made.run()).state
    assert (state.step, state.retries, state.used.steps) == (3, 2, 3)
    assert [record.retries for record in state.records] == [1, 1, 0]
    assert state.stop is StopReason.FINAL and state.finished and state.model == "scripted"
    assert state.phase is Phase.DISCOVER and len(state.history) == 6
    assert state.limits == {"max_steps": 3, "tokens": 100_000}
    assert state.usage == Usage(input_tokens=300, output_tokens=30)


async def test_run(bench: Make) -> None:
    """Runs steps until it is done or out of steps; checks cancellation and caps first."""
    made = await bench([ECHOING] * 3, [ECHO], limits=RunLimits(max_steps=2))
    assert (await made.run()).state.stop is StopReason.BUDGET_STEPS
    assert len(made.server.requests) == 2
    made = await bench(["never asked"])
    run = made.agent.start("go")
    run.cancel()
    assert (await run.result()).state.stop is StopReason.CANCELLED and not made.server.requests
    made = await bench([ECHOING] * 9, [ECHO], limits=RunLimits(max_steps=5))
    await made.run()
    (cap,) = told(made, SoftCapReached)
    assert (cap.cap, cap.used, cap.step) == ("steps", 4, 4)


async def test_step(bench: Make) -> None:
    """In this order: start, prompt, model with retries, totals, history, then tools or the end."""
    made = await bench([Reply(status=503), ECHOING, "done"], [ECHO])
    events = [kind(event) async for event in made.agent.start("go") if event.durable]
    assert events[2:] == [
        "message_added",
        "step_started",
        "retry_scheduled",
        "model_answered",
        "tool_started",
        "phase_changed",
        "tool_finished",
        "step_finished",
        "step_started",
        "model_answered",
        "step_finished",
        "run_finished",
    ]


async def test_tools(bench: Make) -> None:
    """Tools run in parallel; results come in call order; all errors become text for the model."""
    running = 0

    async def meet(context: ToolContext, delay_s: float) -> str:
        """Wait until all are here."""
        nonlocal running
        running += 1
        while running < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(delay_s)
        return f"{delay_s:g}"

    async def broken(context: ToolContext) -> str:
        """Break."""
        raise RuntimeError("boom")

    calls: list[tuple[str, Any]] = [
        *(call("meet", delay_s=delay) for delay in (0.06, 0.03, 0.0)),
        call("broken"),
        call("nobody"),
        call("meet", delay_s="long"),
    ]
    tools = [tool(meet, ToolKind.READ), tool(broken, ToolKind.READ)]
    made = await bench([Reply(calls=calls), "done"], tools)
    result = await made.run()
    results = [m.result for m in result.state.history if m.role is Role.TOOL]
    assert [r.content for r in results[:3]] == ["0.06", "0.03", "0"]
    assert [r.content for r in results[3:]] == [
        "error: broken broke: RuntimeError: boom",
        'error: unknown tool "nobody"; there are: broken, meet',
        'error: arguments: "delay_s" must be a number, got "long"',
    ]
    assert sum(isinstance(event, ToolStarted) for event in made.log.events) == 6
    assert not told(made, RetryScheduled)


def test_retry() -> None:
    """3 retries, 1 s doubling to 30 s; 2 for tools; Retry-After wins, capped; jitter to 20 %."""
    model, tools = RetryConfig(), TOOL_RETRIES
    assert (model.attempts, model.first_delay_s, model.max_delay_s, model.factor) == (4, 1, 30, 2)
    assert tools.attempts == 3 and tools.max_delay_s <= 10
    bare = RetryConfig(jitter=0.0)
    assert [backoff_s(bare, attempt) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    delays = [backoff_s(model, 1) for _ in range(200)]
    assert min(delays) >= 1.0 and max(delays) <= 1.2 and len(set(delays)) > 100
    assert delay_s(model, RateLimitError("slow down", retry_after_s=7.0), 1) == 7.0
    assert delay_s(model, RateLimitError("slow down", retry_after_s=120.0), 1) == 120.0
    assert delay_s(model, RateLimitError("slow down", retry_after_s=120.5), 1) is None
    maybe = DeadlineError("no answer")
    assert delay_s(model, maybe, 1) is not None and delay_s(model, maybe, 2) is None
    assert [delay_s(bare, ServerError("500"), attempt) for attempt in (1, 2, 3, 4)] == [
        1,
        2,
        4,
        None,
    ]
    assert issubclass(RetryExhaustedError, ProviderError)


async def test_classes() -> None:
    """The error class of a status code or an exception decides whether it is retried."""
    answers = [
        (Reply(status=429), RateLimitError),
        (Reply(status=500), ServerError),
        (Reply(status=503), OverloadedError),
        (Reply(status=401), AuthenticationError),
        (Reply(status=403), AccessDeniedError),
        (Reply(status=400), BadRequestError),
        (Reply(status=429, code="insufficient_quota"), QuotaError),
        (Reply(status=418), BadRequestError),
    ]
    with ScriptedServer([reply for reply, _ in answers]) as server:
        client = OpenAIChat(ModelInfo("m", "openai"), "sk-test", server.url)
        for _, expected in answers:
            with pytest.raises(ProviderError) as raised:
                await chat(client, ChatRequest((user("hi"),)))
            assert type(raised.value) is expected
        await client.aclose()
    again = (RateLimitError, ServerError, OverloadedError, ConnectError)
    never = (AuthenticationError, AccessDeniedError, BadRequestError, QuotaError)
    assert {chance(cls("x")) for cls in again} == {Chance.RETRY}
    assert {chance(cls("x")) for cls in (DeadlineError,)} == {Chance.MAYBE}
    more = (*never, ContentFilterError, ContextWindowError, ProviderError)
    assert {chance(cls("500 429 timeout")) for cls in more} == {Chance.NONE}


async def test_hooks(bench: Make) -> None:
    """Each of the reference's hooks has an event, and this run fires all of them."""
    seen: Counter[str] = Counter()

    class Watcher(Hook):
        async def on_event(self, event: Event, state: AgentState) -> None:
            seen[kind(event)] += 1

    async def long(context: ToolContext) -> str:
        """Say much."""
        return "word " * 1200

    talking = Reply(calls=[("long", {})], usage=None)
    script = [
        Reply(text="Hello wor", cut_after=200),
        Reply(calls=[call("shell", command="echo hi; sleep 0.05; echo there")], usage=None),
        *[talking] * 6,
        "done",
    ]
    made = await bench(
        script,
        [SHELL, tool(long, ToolKind.READ)],
        hooks=[Watcher()],
        limits=RunLimits(max_steps=9),
        rules=ContextRules(soft_tokens=8000, hard_tokens=12_000),
        processors=processors_named(["truncate_long_tools", "keep_last_n"]),
    )
    result = await made.run()
    assert result.task_result == "done", result.state.detail
    fires = {
        "step start": "step_started",
        "before LLM": "stage_started",
        "after LLM": "model_answered",
        "tool call": "tool_started",
        "tool result": "tool_finished",
        "tool output": "tool_progress",
        "history changed": "message_added",
        "summarize, budget compression": "compacted",
        "stream delta": "delta",
        "retry attempt": "retry_scheduled",
        "soft cap reached": "soft_cap_reached",
        "done": "run_finished",
    }
    assert [name for name, event in fires.items() if not seen[event]] == []
    # Exhausted retries and an exceeded budget end a run, and its end says so.
    made = await bench([Reply(status=500)] * 4)
    assert "after 4 attempts" in (await made.run()).state.detail
    made = await bench([ECHOING] * 9, [ECHO], limits=RunLimits(tokens=250))
    assert (await made.run()).state.stop is StopReason.BUDGET_TOKENS


async def test_processors(bench: Make) -> None:
    """Processors are chosen and ordered by name; calls keep their results; the task stays."""
    names = [processor.name for processor in processors_named(STANDARD)]
    same = ("summarize_older_than_n", "keep_last_n", "truncate_long_tools")
    assert {*same, "keep_recent_tool_calls", "condense_results", "keep_relevant"} < set(names)
    turned = [processor.name for processor in processors_named(same)]
    assert turned == list(same) and turned != [name for name in names if name in same]

    async def long(context: ToolContext) -> str:
        """Say much."""
        return "\n".join(f"line {number} of many words" for number in range(800))

    made = await bench(
        [Reply(calls=[("long", {})], usage=None)] * 8 + ["done"],
        [tool(long, ToolKind.READ)],
        rules=ContextRules(soft_tokens=9000, hard_tokens=14_000),
        processors=processors_named(
            ["truncate_long_tools", "keep_recent_tool_calls", "keep_last_n"]
        ),
    )
    result = await made.run("the first words")
    passes = [name for event in told(made, Compacted) for name in event.passes]
    assert passes and set(passes) <= {
        "truncate_long_tools",
        "keep_recent_tool_calls",
        "keep_last_n",
    }
    view = list(result.state.view)
    assert view[0].text == "the first words" and len(view) < len(result.state.history)
    validate_history(view)


async def test_budget(bench: Make) -> None:
    """Runs passes in order until it fits; each must shorten; what cannot fit is a typed error."""

    async def long(context: ToolContext) -> str:
        """Say much."""
        return "many words " * 4000

    made = await bench(
        [Reply(calls=[("long", {})], usage=None)] * 4 + ["done"],
        [tool(long, ToolKind.READ)],
        rules=ContextRules(soft_tokens=12_000, hard_tokens=16_000),
        processors=processors_named(["truncate_long_tools", "keep_last_n"]),
    )
    await made.run()
    compactions = told(made, Compacted)
    assert compactions and all(c.tokens_after < c.tokens_before <= 40_000 for c in compactions)
    assert all(c.tokens_after <= 16_000 and c.passes for c in compactions)
    made = await bench(["never asked"], rules=ContextRules(hard_tokens=20))
    result = await made.run("more than fits " * 50)
    error = BudgetError(300, 20, 1)
    assert result.state.error == "BudgetError" and (error.required, error.hard) == (300, 20)
    assert "20 are allowed" in result.state.detail and made.server.requests == []


async def test_phases(bench: Make) -> None:
    """Phases follow from tool kinds and command lines, never from the names or ids of calls."""
    script = [
        Reply(calls=[call("look", text="x")], call_ids=["write_file"]),
        Reply(calls=[call("change", path="f", text="x")], call_ids=["run_tests"]),
        Reply(calls=[call("prove")], call_ids=["read_file"]),
        Reply(calls=[call("change", path="f", text="y")], call_ids=["run_tests_2"]),
        Reply(calls=[call("shell", command="pytest -q --version")]),
        "done",
    ]

    async def prove(context: ToolContext) -> ToolOutput:
        """Prove."""
        return ToolOutput("failed", Outcome.FAILED)

    tools = [
        tool(ECHO.function, ToolKind.READ, name="look"),
        tool(WRITE.function, ToolKind.EDIT, name="change", path_arguments=("path",)),
        tool(prove, ToolKind.CHECK),
        tool(SHELL.function, ToolKind.RUN, command_argument="command"),
    ]
    made = await bench(script, tools)
    await made.run()
    moves = [(event.previous.value, event.phase.value) for event in told(made, PhaseChanged)]
    phases = ["explore", "discover", "edit", "validate", "edit", "validate"]
    assert moves == list(itertools.pairwise(phases))


async def test_streaming(bench: Make) -> None:
    """Text, calls, results and usage arrive as they happen; a retry in mid-answer is announced."""
    script = [
        Reply(text="I will lo", cut_after=400),
        Reply(text="I look.", calls=[call("echo", text="x")], piece=2),
        "done",
    ]
    events: list[Event] = []

    class Watcher(Hook):
        async def on_event(self, event: Event, state: AgentState) -> None:
            events.append(event)

    made = await bench(script, [ECHO], hooks=[Watcher()])
    await made.run()
    deltas = [event.delta for event in events if isinstance(event, Delta)]
    assert {TextDelta, ToolCallDelta, UsageDelta} <= {type(delta) for delta in deltas}
    assert sum(isinstance(event, StreamReset) for event in events) == 1
    after = events[next(n for n, e in enumerate(events) if isinstance(e, StreamReset)) :]
    first = [e.delta.text for e in after if isinstance(e, Delta) and isinstance(e.delta, TextDelta)]
    assert "".join(first).startswith("I look.") and len(first) > 3
    assert any(isinstance(event, ToolFinished) for event in after)


async def test_soft_caps(bench: Make) -> None:
    """Soft caps are announced once and never end the run.

    They are 40 tool calls, 3 failed builds, 3 failed edits of a file, and 80 % of a limit."""

    async def build(context: ToolContext) -> ToolOutput:
        """Build."""
        return ToolOutput("build failed", Outcome.FAILED)

    async def edit(context: ToolContext, path: str) -> ToolOutput:
        """Edit."""
        return ToolOutput("error: not found", Outcome.ERROR)

    tools = [
        ECHO,
        tool(build, ToolKind.CHECK),
        tool(edit, ToolKind.EDIT, path_arguments=("path",)),
    ]
    failing = [Reply(calls=[("build", {}), call("edit", path=p)]) for p in ("a", "./a", "a", "b")]
    many = Reply(calls=[call("echo", text=str(n)) for n in range(40)])
    made = await bench([*failing, many, "done"], tools, limits=RunLimits(max_steps=7))
    result = await made.run()
    caps = sorted((event.cap.split()[0], event.limit) for event in told(made, SoftCapReached))
    assert [(name, round(limit, 1)) for name, limit in caps] == [
        *(("failed_checks", 3), ("failed_edits", 3), ("steps", 5.6), ("tool_calls", 40))
    ]
    assert result.state.stop is StopReason.FINAL


async def test_plan_gate(bench: Make) -> None:
    """With the gate on, edits (by commands too) are blocked until a plan of 3 to 6 steps exists."""
    by_command = call("shell", command="sed -i s/a/b/ f")
    writing = Reply(calls=[call("write", path="f", text="x"), by_command])
    planning = Reply(calls=[call("plan", steps=["a", "b", "c"])])
    short = Reply(calls=[call("plan", steps=["a", "b"])])
    shell = tool(SHELL.function, ToolKind.RUN, command_argument="command")
    tools = [WRITE, shell, plan_tool(Prompts.standard())]
    made = await bench([writing, short, writing, planning, writing, "done"], tools)
    made.agent.stream._hooks = [PlanGate(made.agent.tools.purpose)]
    result = await made.run()
    outcomes = [m.result.outcome for m in result.state.history if m.role is Role.TOOL]
    denied, good = Outcome.DENIED, Outcome.OK
    assert outcomes == [denied, denied, Outcome.ERROR, denied, denied, good, good, good]


@pytest.mark.parametrize("content", ["", "text"])
async def test_providers(content: str) -> None:
    """Empty tool content is never sent as null; every system message is sent."""
    result = ToolResult("c1", "echo", content)
    history = (
        system("the prompt"),
        user("hi"),
        assistant("", ToolCall("c1", "echo", "{}")),
        tool_message(result),
        system("a summary"),
        user("go on"),
    )
    for make in (OpenAIChat, OpenAIResponses, AnthropicMessages):
        with ScriptedServer([Reply(text="done")]) as server:
            client = make(ModelInfo("m", "openai"), "sk-test", server.url)
            await chat(client, ChatRequest(history))
            await client.aclose()
            sent = json.dumps(server.requests[0].json)
            assert server.faults == [] and "null" not in sent.replace('"null"', "")
            assert "the prompt" in sent and "a summary" in sent


async def test_the_state_is_the_fold_of_its_events(bench: Make) -> None:
    """The reference keeps a mutable struct; here the state is a value, folded from events."""
    made = await bench([ECHOING, "done"], [ECHO])
    result = await made.run()
    assert fold_all(made.log.events) == result.state
