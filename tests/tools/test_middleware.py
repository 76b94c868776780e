"""Middleware around tools, in a real registry with real files."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentcli.environments.base import Environment, opened
from agentcli.environments.host import HostEnvironment
from agentcli.errors import ToolError
from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.tools.base import ToolContext, ToolKind, ToolOutput
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.middleware import BeforeAfter, Cache, Execution, RateLimit
from agentcli.tools.registry import Registry, tool


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("bee\n")
    async with opened(HostEnvironment(tmp_path)) as opened_one:
        yield opened_one


class Calling:
    """Calls tools of a registry in an environment."""

    def __init__(self, registry: Registry, environment: Environment) -> None:
        self.registry = registry
        self.context = ToolContext(environment)

    async def __call__(self, name: str, **arguments: Any) -> ToolResult:

        call = ToolCall("c", name, json.dumps(arguments))
        return await self.registry.dispatch(call, self.context)


class TestCache:
    @pytest.fixture
    def cache(self) -> Cache:
        return Cache()

    @pytest.fixture
    def call(self, cache: Cache, environment: Environment) -> Calling:
        return Calling(Registry(builtin_tools(), middleware=[cache]), environment)

    async def test_the_same_call_is_answered_as_before(self, cache: Cache, call: Calling) -> None:
        first = await call("read_file", path="a.txt")
        again = await call("read_file", path="a.txt")
        assert (first.content, again.content, cache.hits) == ("1\tone", "1\tone", 1)
        assert again.data["cached"] and "cached" not in first.data
        await call("read_file", path="a.txt", start=1)
        await call("read_file", path="b.txt")
        assert cache.hits == 1

    async def test_a_write_to_the_same_path_forgets_it_and_no_other(
        self, cache: Cache, call: Calling
    ) -> None:
        for path in ("a.txt", "b.txt"):
            await call("read_file", path=path)
        await call("write_file", path="./a.txt", content="two\n")
        assert (await call("read_file", path="a.txt")).content == "1\ttwo"
        assert cache.hits == 0
        assert (await call("read_file", path="b.txt")).content == "1\tbee"
        assert cache.hits == 1

    async def test_a_command_forgets_all(self, cache: Cache, call: Calling) -> None:
        await call("read_file", path="a.txt")
        await call("shell", command="printf 'two\\n' > a.txt; touch -d '2020-01-01' a.txt")
        assert (await call("read_file", path="a.txt")).content == "1\ttwo"

    async def test_what_the_user_changes_meanwhile_is_seen(
        self, call: Calling, tmp_path: Path
    ) -> None:
        await call("read_file", path="a.txt")
        (tmp_path / "a.txt").write_text("by hand\n")
        assert (await call("read_file", path="a.txt")).content == "1\tby hand"

    async def test_faults_and_other_tools_are_not_kept(self, cache: Cache, call: Calling) -> None:
        for _ in range(2):
            assert (await call("read_file", path="no.txt")).outcome is Outcome.ERROR
            await call("grep", pattern="one")
            await call("shell", command="true")
        assert cache.hits == 0

    async def test_it_keeps_a_bounded_number(self, environment: Environment) -> None:
        cache = Cache(size=2)
        call = Calling(Registry(builtin_tools(), middleware=[cache]), environment)
        for limit in (1, 2, 3, 1):
            await call("read_file", path="a.txt", limit=limit)
        assert cache.hits == 0 and len(cache._kept) <= 2


class TestRateLimit:
    async def test_calls_wait_for_their_turn_and_others_do_not(
        self, environment: Environment
    ) -> None:
        begun: list[float] = []

        @tool(kind=ToolKind.READ)
        async def ask(context: ToolContext) -> str:
            """Ask."""
            begun.append(time.monotonic())
            return "yes"

        def limited(seconds: float) -> Calling:
            rate = RateLimit(["ask"], calls=2, seconds=seconds)
            return Calling(Registry([ask, *builtin_tools()], middleware=[rate]), environment)

        started = time.monotonic()
        call = limited(0.2)
        results = await asyncio.gather(*[call("ask") for _ in range(5)])
        assert [result.content for result in results] == ["yes"] * 5
        # Two start at once, two after the first window and one after the second.
        assert begun[2] - started >= 0.19 and begun[4] - started >= 0.39

        begun.clear()
        call = limited(3600)
        asking = [asyncio.create_task(call("ask")) for _ in range(5)]
        await asyncio.sleep(0)
        assert (await call("list_dir")).outcome is Outcome.OK
        assert len(begun) == 2
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def test_a_call_cancelled_while_waiting_takes_no_turn(
        self, environment: Environment
    ) -> None:
        @tool(kind=ToolKind.READ)
        def ask() -> str:
            """Ask."""
            return "yes"

        rate = RateLimit(["ask"], 1, 3600)
        call = Calling(Registry([ask], middleware=[rate]), environment)
        await call("ask")
        waiting = asyncio.create_task(call("ask"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        rate._seconds = 0.01  # the next call waits so long
        assert (await call("ask")).content == "yes"

    @pytest.mark.parametrize(("calls", "seconds"), [(0, 1.0), (1, 0.0), (-1, 1.0)])
    def test_a_rate_must_let_something_through(self, calls: int, seconds: float) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            RateLimit(["x"], calls, seconds)


class TestBeforeAfter:
    async def test_both_see_checked_arguments_and_may_answer(
        self, environment: Environment, tmp_path: Path
    ) -> None:
        seen: list[Any] = []

        async def before(execution: Execution) -> ToolOutput | None:
            seen.append((execution.spec.name, dict(execution.arguments)))
            if execution.arguments.get("path") == "secret.txt":
                return ToolOutput("not for you", Outcome.DENIED)
            return None

        async def after(execution: Execution, output: ToolOutput) -> ToolOutput:
            return ToolOutput(f"{output.content} (seen)", output.outcome)

        registry = Registry(builtin_tools(), middleware=[BeforeAfter(before, after)])
        call = Calling(registry, environment)
        assert (await call("read_file", path="a.txt", start="1")).content == "1\tone (seen)"
        denied = await call("write_file", path="secret.txt", content="x")
        assert denied.content == "not for you (seen)" and denied.outcome is Outcome.DENIED
        assert not (tmp_path / "secret.txt").exists()
        assert seen[0] == ("read_file", {"path": "a.txt", "start": 1})
        assert (await call("read_file")).outcome is Outcome.ERROR and len(seen) == 2

    async def test_what_it_raises_is_the_calls_error(self, environment: Environment) -> None:
        async def before(execution: Execution) -> ToolOutput | None:
            raise ToolError("the quota is used up")

        registry = Registry(builtin_tools(), middleware=[BeforeAfter(before)])
        result = await Calling(registry, environment)("read_file", path="a.txt")
        assert result.content == "error: the quota is used up"


async def test_the_first_stands_outermost(environment: Environment) -> None:
    order: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        async def around(self, execution: Execution, carry_out: Any) -> ToolOutput:
            order.append(f"{self.name} in")
            output: ToolOutput = await carry_out()
            order.append(f"{self.name} out")
            return output

    registry = Registry(builtin_tools(), middleware=[Noting("a"), Noting("b")])
    await Calling(registry, environment)("read_file", path="a.txt")
    assert order == ["a in", "b in", "b out", "a out"]
