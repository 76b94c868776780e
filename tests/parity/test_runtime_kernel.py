"""System C of the reference, row by row: this kernel does what its runtime kernel does.

As in ``test_react_engine``, each test covers one row of the table in ``docs/parity.md``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from agentcli.agent.budget import RunLimits
from agentcli.agent.criteria import standard
from agentcli.agent.critics import ChecksPass, Critic, Judgement, ModelCritic, Review
from agentcli.agent.decision import Act, Branch, Candidate, Decision, Final, Wait
from agentcli.agent.events import (
    BranchTaken,
    Event,
    MemoryLog,
    PreflightIssue,
    Recovered,
    Reviewed,
    RunFinished,
    SessionStarted,
    Stage,
    StageStarted,
    StepFinished,
    StopReason,
)
from agentcli.agent.hooks import Allow, Hook, Verdict
from agentcli.agent.memory import Memory, SearchMemory, SummaryMemory, WindowMemory
from agentcli.agent.module import AgentModule
from agentcli.agent.preflight import Code, look
from agentcli.agent.processors.selection import KeepLastN
from agentcli.agent.records import kind
from agentcli.agent.run import RunResult
from agentcli.agent.state import STATUS_OF, AgentState, StepRecord, exit_code
from agentcli.environments.base import Environment, Nowhere, opened
from agentcli.environments.choose import choose
from agentcli.environments.docker import DockerEnvironment
from agentcli.environments.host import HostEnvironment
from agentcli.environments.ssh import SshEnvironment
from agentcli.errors import CapabilityError, Place
from agentcli.llm.client import ModelInfo
from agentcli.llm.openai import OpenAIChat
from agentcli.llm.text_calls import parse
from agentcli.messages import Message, Role, ToolCall, ToolDefinition, ToolResult, user
from agentcli.session import store
from agentcli.settings import ProviderSettings, Settings
from agentcli.task import Budget, Resource, Task
from agentcli.tools.base import ToolContext, ToolKind, ToolSpec
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry, tool
from agentcli.tools.verify import verify
from agentcli.wiring import open_agent
from tests.agent.conftest import Bench, Make
from tests.agent.test_kernel import ECHO, WRITE, call
from tests.server import Reply, ScriptedServer

ECHOING = Reply(calls=[call("echo", text="x")])


class Content:
    """A critic that accepts every step."""

    async def review(self, state: AgentState) -> Review:
        return Review()


def told(made: Bench, *classes: type[Event]) -> list[Any]:
    return [event for event in made.log.events if isinstance(event, classes)]


async def test_runtime_phases(bench: Make) -> None:
    """The phases are OBSERVE, DECIDE, ACT, REDUCE, CRITIC, CHECK_STOP, between a start and an end.

    An error reports its phase."""
    made = await bench([ECHOING, "done"], [ECHO], critics=[Content()])
    events = [event async for event in made.agent.start("go")]
    assert isinstance(events[0], SessionStarted) and isinstance(events[-1], RunFinished)
    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    assert stages[:6] == list(Stage) and Stage.ACT not in stages[6:]
    made = await bench([Reply(status=401)])
    state = (await made.run()).state
    assert state.error == "AuthenticationError" and state.place == Place(1, Stage.DECIDE.value)


async def test_events(bench: Make) -> None:
    """Each stage has a start and a result; END comes once; hooks wrap each call and the run."""
    order: list[str] = []

    class Watcher(Hook):
        async def on_event(self, event: Event, state: AgentState) -> None:
            order.append(kind(event))

        async def before_tool(self, call: ToolCall, state: AgentState) -> Verdict:
            order.append("before_tool")
            return Allow()

    for script in (["done"], [Reply(status=401)], [Reply(calls=[("nobody", {})]), "done"]):
        made = await bench(script, [ECHO], hooks=[Watcher()])
        await made.run()
        assert order.count("run_finished") == 1 and order[-1] == "run_finished"
        assert order[0] == "session_started"
        order.clear()
    made = await bench([ECHOING, "done"], [ECHO], hooks=[Watcher()])
    await made.run()
    step = order[order.index("step_started") : order.index("step_finished") + 1]
    names = ("model_answered", "before_tool", "tool_started", "tool_finished")
    places = [step.index(name) for name in names]
    assert places == sorted(places) and step.count("before_tool") == 1


async def test_agent_module(bench: Make) -> None:
    """Six methods are called in their places; run() returns the final answer or the full result."""

    class Mine(AgentModule):
        asked: list[str]

        def init_state(self, state: AgentState) -> Sequence[Message]:
            return [user("remember")]

        def build_system_prompt(self, state: AgentState) -> str:
            return "the prompt"

        async def observe(self, state: AgentState) -> str:
            return "news" if state.running_step == 1 else ""

        async def decide(self, state: AgentState) -> Decision | None:
            return echo("by myself") if state.running_step == 1 else None

        async def reduce(self, state: AgentState, results: Sequence[ToolResult]) -> str:
            return "noted" if results else ""

        def should_stop(self, state: AgentState) -> StopReason | None:
            return StopReason.AGENT_CONDITION if state.running_step == 2 else None

    made = await bench([ECHOING], [ECHO], module=Mine())
    result = await made.run("task")
    texts = [message.text for message in result.state.history if message.text]
    assert texts == ["the prompt", "remember", "task", "news", "noted", "noted"]
    assert result.state.stop is StopReason.AGENT_CONDITION

    def thin() -> tuple[Any, Any]:
        with ScriptedServer([Reply(text="answer")] * 2) as server:
            made = [
                AgentModule().run(
                    "task",
                    OpenAIChat(ModelInfo("m", "openai"), "sk-test", server.url),
                    return_state=whole,
                )
                for whole in (False, True)
            ]
            return made[0], made[1]

    answer, whole = await asyncio.to_thread(thin)
    assert answer == "answer" and isinstance(whole, RunResult) and whole.task_result == "answer"


def echo(text: str) -> Act:
    return Act((ToolCall("c", "echo", f'{{"text": "{text}"}}'),))


def test_stop_reasons() -> None:
    """All stop reasons of the reference exist, each with a meaning and an exit code."""
    reference = (
        "success final max_steps budget_steps budget_time budget_tokens agent_condition "
        "critic_stop stagnation env_terminal task_validation_failed env_capability_mismatch "
        "unrecoverable_error"
    )
    ours = {reason.value for reason in StopReason}
    assert set(reference.split()) - {"max_steps"} <= ours  # called budget_steps here
    assert {"declined", "tries_used_up"} <= ours and set(STATUS_OF) == set(StopReason)
    codes = {reason.value: exit_code(reason, STATUS_OF[reason]) for reason in StopReason}
    assert codes["final"] == codes["success"] == codes["env_terminal"] == 0
    assert codes["declined"] == codes["tries_used_up"] == codes["stagnation"] == 1
    assert codes["task_validation_failed"] == 2 and codes["env_capability_mismatch"] == 4


async def test_stop_order(bench: Make) -> None:
    """Before a step: steps, tokens; after: final, agent, environment, steps, time, stagnation."""
    made = await bench([], [ECHO], limits=RunLimits(max_steps=0, tokens=1))
    assert (await made.run()).state.stop is StopReason.BUDGET_STEPS
    made = await bench([], [ECHO], limits=RunLimits(tokens=1))
    assert (await made.run()).state.stop is StopReason.BUDGET_TOKENS
    agent = made.agent
    limits = RunLimits(time_s=1.0)
    environment = agent.context.environment
    order = standard(agent._checking, AgentModule(), limits, environment).order
    assert [type(criterion).__name__ for criterion in order] == [
        "ToolSays",
        "FinalAnswer",
        "AgentCondition",
        "EnvironmentTerminal",
        "MaxSteps",
        "MaxRuntime",
        "Stagnation",
    ]
    wrong = Reply(calls=[call("echo", text=7)])
    made = await bench([wrong] * 3, [ECHO], limits=RunLimits(max_steps=3))
    assert (await made.run()).state.stop is StopReason.BUDGET_STEPS  # not STAGNATION


async def test_decisions(bench: Make) -> None:
    """act needs actions; final needs an answer; wait does nothing; a branch takes the best."""

    class Deciding(AgentModule):
        plan: Sequence[Decision] = (
            Wait(),
            Branch((Candidate(echo("worse"), 0.2), Candidate(echo("better"), 0.7))),
            Final("enough"),
        )

        async def decide(self, state: AgentState) -> Decision | None:
            return self.plan[state.running_step - 1]

    made = await bench([], [ECHO], module=Deciding())
    result = await made.run()
    assert result.task_result == "enough" and result.step_count == 3
    assert [m.result.content for m in result.state.history if m.role is Role.TOOL] == ["better"]
    assert told(made, BranchTaken) == [BranchTaken(2, 1, (0.2, 0.7))]
    for wrong in (lambda: Act(()), lambda: Final(""), lambda: Branch(())):
        with pytest.raises(ValueError, match=r"at least|empty"):
            wrong()


async def test_recovery(bench: Make) -> None:
    """Up to 3 recoveries per run; an exception in a tool is the result of its call instead."""

    class Faulty(AgentModule):
        faults = 3

        async def observe(self, state: AgentState) -> str:
            if self.faults:
                self.faults -= 1
                raise ValueError("oops")
            return ""

    async def broken(context: ToolContext) -> str:
        """Break."""
        raise RuntimeError("boom")

    script = [Reply(calls=[("broken", {})]), "done"]
    made = await bench(script, [tool(broken, ToolKind.READ)], module=Faulty())
    assert (await made.run()).task_result == "done"
    assert [(event.stage, event.count) for event in told(made, Recovered)] == [
        (Stage.OBSERVE, 1),
        (Stage.OBSERVE, 2),
        (Stage.OBSERVE, 3),
    ]
    module = Faulty()
    module.faults = 4
    made = await bench(["never"], module=module)
    assert (await made.run()).state.stop is StopReason.UNRECOVERABLE_ERROR


async def test_critics(bench: Make) -> None:
    """All critics run; the first stop or retry in order wins; a retry uses up a step.

    Two are built in: one runs the checks, the other asks a model."""

    class Saying:
        def __init__(self, *judgements: Judgement) -> None:
            self.judgements = list(judgements)
            self.heard = 0

        async def review(self, state: AgentState) -> Review:
            self.heard += 1
            judgement = self.judgements.pop(0) if self.judgements else Judgement.CONTINUE
            return Review(judgement, judgement.value)

    critics = [Saying(), Saying(Judgement.RETRY), Saying(Judgement.STOP, Judgement.STOP)]
    made = await bench(["one", "two"], critics=critics)
    result = await made.run()
    assert result.state.stop is StopReason.CRITIC_STOP and result.state.used.steps == 2
    assert [critic.heard for critic in critics] == [2, 2, 2]
    assert made.server.requests[1].json["messages"][-1]["content"] == "retry"

    verdicts = [
        Reply(text=json.dumps({"judgement": word, "reason": f"I say {word}"}))
        for word in ("continue", "stop")
    ]
    with ScriptedServer(verdicts) as judging:
        judge = OpenAIChat(ModelInfo("judge", "openai"), "sk-test", judging.url)
        script = ["done", Reply(calls=[call("write", path="there", text="x")]), "done"]
        made = await bench(script, [WRITE])
        tests = ChecksPass(verify, made.agent.context, ["test -e there"])
        judges: list[Critic] = [tests, ModelCritic(judge, "You judge.")]
        made = await bench(script, [WRITE], critics=judges)
        result = await made.run()
        await judge.aclose()
    assert [(event.step, event.critic, event.judgement) for event in told(made, Reviewed)] == [
        (1, "ChecksPass", "retry"),
        (1, "ModelCritic", "continue"),
        (3, "ChecksPass", "continue"),
        (3, "ModelCritic", "stop"),
    ]
    assert result.state.detail == "I say stop"


async def test_preflight(bench: Make, tmp_path: Path) -> None:
    """All 17 codes; a run with issues ends once, without a step, and lists all of them."""
    bad = Task(
        " ",
        id="no id",
        max_steps=0,
        budget=Budget(tokens=-1, time_s=0.0),
        env="moon",
        resources=(
            Resource("x", kind="pipe", mount="/abs"),
            Resource(""),
            Resource("missing"),
        ),
    )
    made = await bench(["never asked"])
    made.agent._preflight = partial(look, bad, made.agent.context.environment)
    result = await made.run()
    told_of = [event.code for event in told(made, PreflightIssue)]
    assert told_of == [
        "TASK_ID_INVALID",
        "TASK_OBJECTIVE_INVALID",
        "TASK_BUDGET_STEPS_INVALID",
        "TASK_BUDGET_RUNTIME_INVALID",
        "TASK_BUDGET_TOKENS_INVALID",
        "TASK_ENV_SPEC_INVALID",
        "TASK_RESOURCE_KIND_INVALID",
        "TASK_RESOURCE_MOUNT_INVALID",
        "TASK_RESOURCE_MISSING",
        "TASK_RESOURCE_LOCATOR_MISSING",
        "TASK_RESOURCE_MISSING",
    ]
    assert (result.step_count, result.exit_code) == (0, 2)
    assert len(told(made, RunFinished)) == 1
    assert all(code in result.state.detail for code in told_of)

    found = [Code(code) for code in told_of]
    specs = Registry(builtin_tools()).specs
    found += await codes(Task("do it"), Nowhere(), specs, groups=["x"])
    found += await codes(Task("do it", resources=(None,)), Nowhere())  # type: ignore[arg-type]
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "read.txt").touch(mode=0o444)
    beside = (
        Resource("read.txt", writable=True),
        Resource("locked/new.txt", required=False, writable=True),
    )
    async with opened(HostEnvironment(tmp_path, wanted="none")) as host:

        class FilesAlone:
            """The host without commands, so only file modes tell what is writable."""

            operations, root, stat = frozenset({"files"}), host.root, staticmethod(host.stat)

        found += await codes(Task("do it", resources=beside), FilesAlone())  # type: ignore[arg-type]
    (tmp_path / "gone").mkdir()
    async with opened(HostEnvironment(tmp_path / "gone", wanted="none")) as host:
        (tmp_path / "gone").rmdir()
        found += await codes(Task("do it"), host)
    found += await codes(Task("do it"), host)  # now closed
    assert set(found) == set(Code) and len(Code) == 17


async def codes(
    task: Task, environment: Environment, specs: Sequence[ToolSpec] = (), **options: Any
) -> list[Code]:
    return [issue.code for issue in await look(task, environment, specs, **options)]


async def test_memory(bench: Make) -> None:
    """Records are appended during the run, retrieved for DECIDE, and kept on resume.

    The strategies are window, summary and search."""

    async def find(context: ToolContext, topic: str) -> str:
        """Find."""
        return f"{topic} lies at {'4711' if topic == 'port' else 'nowhere'}. " + "words " * 60

    topics = ["port", "sun", "moon", "stars", "sky", "sea"]
    memories: list[Callable[[], Memory]] = [lambda: WindowMemory(8), SummaryMemory, SearchMemory]
    for memory in memories:
        script = [Reply(calls=[("find", {"topic": topic})]) for topic in topics]
        tools, processors = [tool(find, ToolKind.READ)], [KeepLastN(2)]
        made = await bench([*script, "found"], tools, memory=memory(), processors=processors)
        await made.agent.start("find everything").result()
        await made.agent.compact()
        state = made.agent.state
        assert "4711" not in str(list(state.view))
        made = await bench(["4711"], tools, memory=memory(), processors=processors, state=state)
        await made.agent.start("where does the port lie?").result()
        asked = made.server.requests[-1].json["messages"]
        assert any("port" in str(message["content"]) for message in asked[:-1])
        if memory is not SummaryMemory:
            assert any("4711" in str(message["content"]) for message in asked)


async def test_environments(tmp_path: Path) -> None:
    """Host, Docker and remote share one protocol; tools declare the operations they need."""
    names = {
        "host": HostEnvironment,
        "docker:IMAGE": DockerEnvironment,
        "ssh:HOST": SshEnvironment,
    }
    for name, environment in names.items():
        made = choose(name, tmp_path)
        assert type(made) is environment and made.operations == {"files", "process"}
    with pytest.raises(CapabilityError):
        choose("moon", tmp_path)
    async with opened(HostEnvironment(tmp_path)) as host:
        found = await Registry(builtin_tools()).dispatch(
            ToolCall("c", "shell", '{"command": "echo hi"}'), ToolContext(host)
        )
        assert found.content.startswith("exit code 0")
    for spec in Registry(builtin_tools()).specs:
        assert spec.requires
    refused = await Registry(builtin_tools()).dispatch(
        ToolCall("c", "shell", '{"command": "echo hi"}'), ToolContext(Nowhere())
    )
    assert refused.content == "error: shell needs process, not available here"


async def work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Sequence[Any],
    tools: Literal["native", "function"] = "native",
) -> Path:
    """Run an agent from the composition root; return the folder of its session."""
    for name in ("DATA", "CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"AGENTCLI_{name}_DIR", str(tmp_path / name.lower()))
    (tmp_path / "repo").mkdir()
    with ScriptedServer(script) as server:
        provider = ProviderSettings(base_url=server.url, api_key_env="", tools=tools)
        settings = Settings(model="mine:m", sandbox="none", providers={"mine": provider})
        async with open_agent(settings, workspace=tmp_path / "repo", task=Task("go")) as agent:
            result = await agent.start("go").result()
    return store.journal_path(result.state.session_id).parent


async def test_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """manifest.json, events.jsonl and steps.jsonl contain what the reference lists."""
    writing = Reply(calls=[("write_file", {"path": "a.txt", "content": "1\n"})])
    folder = await work(tmp_path, monkeypatch, [writing, Reply(text="done")])
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("run_id", "status", "step_count", "event_count", "summary", "model"):
        assert manifest[name]
    for name in ("prompt_hash", "tool_versions", "seed", "config_hash"):
        assert name in manifest
    assert {"stop_reason", "final_result", "failure_report"} <= manifest["summary"].keys()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    for name in ("observation", "decision", "actions", "results", "state_diff"):
        assert name in steps[0], sorted(steps[0])
    assert (folder / "events.jsonl").read_text().count("\n") == manifest["event_count"]


async def test_result(bench: Make) -> None:
    """The result has the state, records, events, step count and the task's result."""
    made = await bench([ECHOING, "the answer"], [ECHO])
    result = await made.run()
    assert result.task_result == result.state.answer == "the answer"
    assert result.step_count == len(result.records) == 2
    assert result.events == tuple(made.log.events)
    assert isinstance(result.records[0], StepRecord) and isinstance(made.log, MemoryLog)
    assert sum(isinstance(event, StepFinished) for event in made.log.events) == 2


async def test_text_parsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ReAct, JSON, XML and function form, chosen by a provider's setting.

    Calls that are only unclosed are recovered."""
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    tools = [ToolDefinition("read", "Read.", schema)]
    whole = {
        "react": 'Thought: look\nAction: read\nAction Input: {"path": "a"}',
        "json": '{"tool": "read", "arguments": {"path": "a"}}',
        "xml": '<tool name="read"><path>a</path></tool>',
        "function": 'read(path="a")',
    }
    for form, text in whole.items():
        ending = {"xml": "</tool>", "function": ")"}.get(form, "}")
        for written in (text, text.removesuffix(ending)):
            (found,) = parse(form, written, tools).calls  # type: ignore[arg-type]
            assert (found.name, json.loads(found.arguments)) == ("read", {"path": "a"})
    answer = parse("react", "Thought: known\nFinal Answer: 42", tools)
    assert (answer.text, answer.calls) == ("42", ())
    writing = 'write_file(path="a.txt", content="1")'
    folder = await work(
        tmp_path, monkeypatch, [Reply(text=writing), Reply(text="done")], "function"
    )
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [action["name"] for action in steps[0]["actions"]] == ["write_file"]
    assert (tmp_path / "repo" / "a.txt").read_text() == "1"
