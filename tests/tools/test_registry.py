"""The registry: every call gets a result; only a cancellation propagates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from agentcli.environments.host import HostEnvironment
from agentcli.errors import ConfigError, EnvironmentOpError, ToolError
from agentcli.messages import Image, Outcome, ToolCall, ToolResult
from agentcli.prompts import Prompts
from agentcli.tools.approval import Approval, Reply
from agentcli.tools.base import Tool, ToolContext, ToolKind, ToolOutput, ToolSpec
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.registry import Registry, tool
from tests.tools.conftest import Call

OBJECT: Mapping[str, Any] = {"type": "object", "properties": {}}


async def echo(context: ToolContext, text: str, times: int = 1) -> str:
    """Say it again.

    Args:
        text: What to say.
        times: How often.
    """
    return text * times


async def send(registry: Registry, name: str, arguments: str, context: ToolContext) -> ToolResult:
    return await registry.dispatch(ToolCall("call-1", name, arguments), context)


@pytest.fixture
def registry() -> Registry:
    return Registry([tool(echo, ToolKind.READ), tool(echo, ToolKind.READ, name="again")])


async def test_a_call_becomes_a_result(registry: Registry, context: ToolContext) -> None:
    result = await send(registry, "echo", '{"text": "ab", "times": 2}', context)
    assert result == ToolResult("call-1", "echo", "abab")


@pytest.mark.parametrize(
    ("name", "arguments", "content"),
    [
        ("foo", "{}", 'error: unknown tool "foo"; there are: again, echo'),
        ("echo", "{}", 'error: arguments: "text" is missing'),
        ("echo", '{"text": 5}', 'error: arguments: "text" must be a string, got 5'),
        (
            "echo",
            '{"text": "a", "times": "ten"}',
            'error: arguments: "times" must be an integer, got "ten"',
        ),
        (
            "echo",
            '{"text": "a", "x": 1}',
            'error: arguments: "x" is not known; known are "text", "times"',
        ),
        ("echo", "[1]", "error: arguments: must be an object, got [1]"),
        ("echo", '{"text": "a', None),
        ("echo", "text=a", None),
        ("echo", '{"text": "a"} trailing', None),
        ("echo", "[" * 100_000, None),
        ("echo", '{"text": "a", "times": ' + "9" * 5000 + "}", None),
        (
            "echo",
            '{"text": "\\ud800"}',
            "error: arguments: a string holds half of a surrogate pair",
        ),
        ("echo", '{"text": "a", "text": "b"}', 'error: arguments: "text" is given twice'),
        ("echo", '{"text": "a", "times": NaN}', "error: arguments: NaN is not a JSON number"),
    ],
)
async def test_what_is_wrong_with_a_call_is_told(
    registry: Registry, context: ToolContext, name: str, arguments: str, content: str | None
) -> None:
    result = await send(registry, name, arguments, context)
    assert result.outcome is Outcome.ERROR
    assert (result.call_id, result.name) == ("call-1", name)
    if content is None:
        assert result.content.startswith("error: arguments: ") and len(result.content) < 250
    else:
        assert result.content == content


async def test_no_arguments_at_all_mean_none(context: ToolContext) -> None:
    async def now(context: ToolContext) -> str:
        """Say now."""
        return "now"

    registry = Registry([tool(now, ToolKind.READ)])
    for arguments in ("", " ", "{}", "null"):
        assert (await send(registry, "now", arguments, context)).content == "now"


@pytest.mark.parametrize(
    ("error", "content", "data"),
    [
        (ToolError("no good", hint="Try more"), "error: no good. Try more", {"error": "ToolError"}),
        (
            EnvironmentOpError("a.py: no such file", code="ENOENT"),
            "error: a.py: no such file",
            {"error": "EnvironmentOpError", "code": "ENOENT"},
        ),
        (
            ValueError("bad value"),
            "error: fail broke: ValueError: bad value",
            {"error": "ValueError"},
        ),
        (TimeoutError("own"), "error: fail broke: TimeoutError: own", {"error": "TimeoutError"}),
    ],
)
async def test_a_tool_that_fails_is_told(
    context: ToolContext, error: Exception, content: str, data: dict[str, str]
) -> None:
    async def fail(context: ToolContext) -> str:
        """Fail."""
        raise error

    result = await send(Registry([tool(fail, ToolKind.RUN)]), "fail", "{}", context)
    assert (result.outcome, result.content, result.data) == (Outcome.ERROR, content, data)


async def test_a_tool_can_give_back_images(context: ToolContext) -> None:
    async def draw(context: ToolContext, kind: str) -> ToolOutput:
        """Draw."""
        return ToolOutput("[image a]", images=(Image(b"1", kind, "a"),))

    registry = Registry([tool(draw, ToolKind.READ)])
    drawn = await send(registry, "draw", '{"kind": "image/png"}', context)
    assert drawn.images == (Image(b"1", "image/png", "a"),)
    refused = await send(registry, "draw", '{"kind": "image/tiff"}', context)
    assert (refused.content, refused.images) == (
        "error: draw broke: TypeError: models do not accept image/tiff",
        (),
    )


async def test_what_a_tool_may_not_give_back(context: ToolContext) -> None:
    async def count(context: ToolContext) -> str:
        """Count."""
        return 5  # type: ignore[return-value]

    result = await send(Registry([tool(count, ToolKind.READ)]), "count", "", context)
    assert result.content == (
        "error: count broke: TypeError: a tool must return text or a ToolOutput, not int"
    )


async def test_the_deadline_of_a_tool(context: ToolContext) -> None:
    async def wait(context: ToolContext) -> str:
        """Wait for ever."""
        await asyncio.Event().wait()
        return ""

    registry = Registry([tool(wait, ToolKind.RUN, timeout_s=0.05)])
    result = await send(registry, "wait", "", context)
    assert (result.outcome, result.content) == (
        Outcome.ERROR,
        "error: wait did not finish within 0.05 s",
    )


async def test_cancellation_passes_through(context: ToolContext) -> None:
    started = asyncio.Event()

    async def wait(context: ToolContext) -> str:
        """Wait for ever."""
        started.set()
        await asyncio.Event().wait()
        return ""

    task = asyncio.create_task(send(Registry([tool(wait, ToolKind.RUN)]), "wait", "", context))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_long_result_keeps_head_and_tail(context: ToolContext) -> None:
    async def talk(context: ToolContext) -> ToolOutput:
        """Talk."""
        return ToolOutput("first\n" + "x" * 5_000_000 + "\nlast", Outcome.FAILED, data={"a": 1})

    result = await send(Registry([tool(talk, ToolKind.RUN)]), "talk", "", context)
    assert len(result.content) <= context.output_chars
    assert result.content.startswith("first\n") and result.content.endswith("\nlast")
    assert result.outcome is Outcome.FAILED and result.data == {"a": 1}


async def test_a_result_can_always_be_encoded(context: ToolContext) -> None:
    async def odd(context: ToolContext) -> ToolOutput:
        """Give back what UTF-8 cannot hold."""
        return ToolOutput("a\udc80b", diff="+a\udc80b")

    result = await send(Registry([tool(odd, ToolKind.READ)]), "odd", "", context)
    assert (result.content, result.diff) == ("a\ufffdb", "+a\ufffdb")


async def test_a_tool_knows_its_call(context: ToolContext) -> None:
    async def which(context: ToolContext) -> str:
        """Say which call this is."""
        return context.call_id

    result = await send(Registry([tool(which, ToolKind.READ)]), "which", "", context)
    assert result.content == "call-1"


async def test_what_is_refused_does_not_run(context: ToolContext) -> None:
    ran = False

    async def change(context: ToolContext) -> str:
        """Change something."""
        nonlocal ran
        ran = True
        return "done"

    registry = Registry([tool(change, ToolKind.EDIT)], ModePermissions(Mode.PLAN))
    result = await send(registry, "change", "", context)
    assert result.outcome is Outcome.DENIED and result.content.startswith("denied: plan mode")
    assert not ran


async def test_arguments_are_checked_before_anyone_is_asked(context: ToolContext) -> None:
    async def ask(approval: Approval) -> Reply:
        raise AssertionError("asked about a call that cannot run")

    registry = Registry([tool(echo, ToolKind.RUN)], ModePermissions(Mode.ASK, ask))
    assert (await send(registry, "echo", "{}", context)).outcome is Outcome.ERROR


async def test_an_environment_that_lacks_an_operation(context: ToolContext) -> None:
    class FilesOnly(HostEnvironment):
        operations = frozenset({"files"})

    bare = ToolContext(FilesOnly(context.environment.root))
    registry = Registry([tool(echo, ToolKind.RUN, requires=frozenset({"process"}))])
    result = await send(registry, "echo", '{"text": "a"}', bare)
    assert result.content == "error: echo needs process, not available here"


# Registration


def spec(name: str = "x", **fields: Any) -> ToolSpec:
    given = {"description": "Does x.", "parameters": OBJECT, "kind": ToolKind.READ, **fields}
    return ToolSpec(name=name, **given)


async def nothing(context: ToolContext) -> str:
    return ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a b"}, "'a b' cannot be the name of a tool"),
        ({"name": "x" * 65}, "cannot be the name"),
        ({"description": " "}, "tool x: a description is missing"),
        ({"parameters": {"type": "array"}}, "tool x: a tool's parameters must be an object"),
        ({"parameters": {"type": "object", "properties": {"a": {"type": "objekt"}}}}, "tool x: "),
        (
            {"parameters": {"type": "object", "properties": {"a": {"$ref": "http://[::1]/x"}}}},
            "tool x: ",
        ),
        ({"parameters": {"type": "object", "properties": {"a": {}}}}, "function and schema differ"),
        ({"path_arguments": ("path",)}, "tool x has no argument path"),
        ({"text_of": {"old": "path"}}, "tool x has no argument old, path"),
        ({"depends_on": ("y",)}, "tool x depends on y, not registered"),
        ({"timeout_s": 0}, "timeout_s must be more than 0"),
    ],
)
def test_an_unsound_tool_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Registry([Tool(spec(**fields), nothing)])


def test_a_function_must_be_async() -> None:
    with pytest.raises(ConfigError, match="tool x: its function must be async"):
        Registry([Tool(spec(), lambda context: "now")])  # type: ignore[arg-type, return-value]


async def test_an_object_can_be_a_tools_function(context: ToolContext) -> None:
    class Remote:
        async def __call__(self, context: ToolContext, **arguments: Any) -> str:
            return f"called with {json.dumps(arguments)}"

    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    registry = Registry([Tool(spec("remote", parameters=parameters), Remote())])
    result = await send(registry, "remote", '{"a": 1}', context)
    assert result.content == 'called with {"a": 1}'


def test_dependencies_are_registered_first_whatever_the_order() -> None:
    tools = [
        Tool(spec("a", depends_on=("b", "c")), nothing),
        Tool(spec("b", depends_on=("c",)), nothing),
        Tool(spec("c"), nothing),
    ]
    assert [spec.name for spec in Registry(tools).specs] == ["a", "b", "c"]


def test_dependencies_in_a_circle_are_refused() -> None:
    tools = [
        Tool(spec("a", depends_on=("b",)), nothing),
        Tool(spec("b", depends_on=("a",)), nothing),
    ]
    with pytest.raises(ConfigError, match="in a circle: a → b → a"):
        Registry(tools)


def test_a_new_version_takes_the_place_of_the_old() -> None:
    registry = Registry([Tool(spec(), nothing)])
    registry.register(Tool(spec(version="2", description="Newer."), nothing))
    assert [definition.description for definition in registry.definitions()] == ["Newer."]
    with pytest.raises(ConfigError, match="tool x@2 is registered twice"):
        registry.register(Tool(spec(version="2"), nothing))


# The built-in tools


def test_the_built_in_tools() -> None:
    registry = Registry(builtin_tools())
    assert {spec.name: spec.kind.value for spec in registry.specs} == {
        "read_file": "read",
        "list_dir": "search",
        "glob": "search",
        "grep": "search",
        "write_file": "edit",
        "search_replace": "edit",
        "run_tests": "check",
        "run_build": "check",
        "run_lint": "check",
        "shell": "run",
        "python": "run",
    }
    found = registry.spec("search_replace")
    assert found is not None and found.text_of == {"path": "", "old": "path"}


def test_definitions_are_those_of_the_prompts_and_in_a_fixed_order() -> None:
    definitions = Registry(builtin_tools()).definitions()
    assert [d.name for d in definitions] == sorted(d.name for d in definitions)
    prompts = Prompts.standard()
    for definition in definitions:
        assert definition.description == prompts.get(f"tools/{definition.name}")
        for name, schema in definition.parameters["properties"].items():
            assert schema["description"].endswith("."), (definition.name, name)


def test_only_tools_that_only_look_may_be_retried() -> None:
    kinds: set[Literal["read", "search"] | str] = {
        spec.kind.value for spec in Registry(builtin_tools()).specs if spec.retryable
    }
    assert kinds == {"read", "search"}


async def test_a_file_has_one_name_however_it_is_spelt(workspace: Path, call: Call) -> None:
    (workspace / "a").mkdir()
    for path in ("a/b.py", "./a/b.py", "a/../a//b.py", f"{workspace.resolve()}/a/b.py"):
        assert (await call("write_file", path=path, content=path)).paths == ("a/b.py",)
    assert (await call("list_dir", path="./")).paths == (".",)
