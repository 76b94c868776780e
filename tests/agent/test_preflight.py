"""Preflight finds all problems of a task at once, before its first step."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentcli.agent.events import PreflightIssue, RunFinished, Status, StepStarted, StopReason
from agentcli.agent.preflight import Code, look
from agentcli.environments.base import Environment, Nowhere, opened
from agentcli.environments.host import HostEnvironment
from agentcli.errors import EnvironmentOpError
from agentcli.task import Budget, Resource, Task
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.registry import Registry
from tests.agent.conftest import Make

GOOD = Task("do it", id="t-1.2", max_steps=3, budget=Budget(tokens=5, time_s=1.0), env="host")
SPECS = Registry(builtin_tools()).specs


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("1\n")
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "locked" / "old.txt").write_text("")
    os.chmod(tmp_path / "locked" / "old.txt", 0o444)
    async with opened(HostEnvironment(tmp_path)) as environment:
        yield environment


def using(**resource: Any) -> Task:
    return replace(GOOD, resources=(Resource(**resource),))


async def codes(task: Task, environment: Environment, **options: Any) -> list[str]:
    return [issue.code.value for issue in await look(task, environment, SPECS, **options)]


async def test_a_sound_task_has_no_issue(host: Environment) -> None:
    resources = (
        Resource("data/in.csv"),
        Resource("data", kind="folder", mount="input", writable=True),
        Resource("out.txt", required=False, writable=True),
        Resource("nothing.txt", required=False),
    )
    assert await codes(replace(GOOD, resources=resources), host, groups=["files"]) == []


WRONG: dict[str, Task] = {
    "TASK_ID_INVALID": replace(GOOD, id="../x"),
    "TASK_OBJECTIVE_INVALID": replace(GOOD, instruction=" \n"),
    "TASK_BUDGET_STEPS_INVALID": replace(GOOD, max_steps=0),
    "TASK_BUDGET_RUNTIME_INVALID": replace(GOOD, budget=Budget(time_s=-1.0)),
    "TASK_BUDGET_TOKENS_INVALID": replace(GOOD, budget=Budget(tokens=0)),
    "TASK_ENV_SPEC_INVALID": replace(GOOD, env="docker:"),
    "TASK_RESOURCE_KIND_INVALID": using(path="data", kind="socket"),
    "TASK_RESOURCE_LOCATOR_MISSING": using(path=" "),
    "TASK_RESOURCE_MOUNT_INVALID": using(path="data/in.csv", mount="../elsewhere"),
    "TASK_RESOURCE_MISSING": using(path="data/out.csv"),
    "TASK_VALIDATION_EXCEPTION": replace(GOOD, resources=(None,)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("code", WRONG)
async def test_a_fault_has_its_code(code: str, host: Environment) -> None:
    assert await codes(WRONG[code], host) == [code]
    assert Code(code).reason is StopReason.TASK_VALIDATION_FAILED


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b", ".."])
async def test_resources_outside_are_not_looked_at(path: str, host: Environment) -> None:
    assert await codes(using(path=path), host) == ["TASK_RESOURCE_MISSING"]


async def test_a_file_is_no_folder(host: Environment) -> None:
    assert await codes(using(path="data/in.csv", kind="folder"), host) == ["TASK_RESOURCE_MISSING"]


class TestRights:
    """Missing write permissions. Root can write everything, so another user looks for them."""

    @pytest.fixture
    def guarded(self, host: Environment) -> Environment:
        class Guarded:
            """The host's files, as seen by a user who does not own them."""

            operations = frozenset({"files"})
            root, stat = host.root, staticmethod(host.stat)

        return Guarded()  # type: ignore[return-value]

    async def test_to_a_file(self, guarded: Environment) -> None:
        task = using(path="locked/old.txt", writable=True)
        found = await look(task, guarded)
        assert [issue.code for issue in found] == [Code.TASK_RESOURCE_NOT_WRITABLE]

    async def test_to_the_folder_of_a_new_file(self, guarded: Environment) -> None:
        task = using(path="locked/new.txt", required=False, writable=True)
        found = await look(task, guarded)
        assert [issue.code for issue in found] == [Code.TASK_RESOURCE_PARENT_NOT_WRITABLE]
        assert "nothing can be created in locked" in found[0].message

    async def test_a_command_asks_where_there_are_commands(self, host: Environment) -> None:
        asked: list[str] = []
        exec_ = host.exec

        async def watched(argv: Any, **options: Any) -> Any:
            asked.append(argv[-1])
            return await exec_(argv, **options)

        host.exec = watched  # type: ignore[method-assign]
        assert await codes(using(path="data/in.csv", writable=True), host) == []
        assert asked == ["data/in.csv"]


class TestEnvironment:
    async def test_operations_that_tools_need(self) -> None:
        found = await look(GOOD, Nowhere(), SPECS)
        assert {issue.code for issue in found} == {Code.ENV_REQUIRED_OPS_MISSING}
        assert "read_file needs files" in [issue.message for issue in found]
        assert Code.ENV_REQUIRED_OPS_MISSING.reason is StopReason.ENV_CAPABILITY_MISMATCH

    async def test_operations_that_the_agent_needs(self) -> None:
        found = await look(GOOD, Nowhere(), groups=["files"])
        assert [issue.code for issue in found] == [Code.ENV_OPS_GROUP_MISSING]

    async def test_a_workspace_that_is_gone(self, host: Environment, tmp_path: Path) -> None:
        async def gone(path: str) -> None:
            return None

        host.stat = gone  # type: ignore[method-assign]
        assert await codes(GOOD, host) == ["ENV_HEALTH_CHECK_FAILED"]

    async def test_a_broken_environment(self, host: Environment) -> None:
        async def broken(path: str) -> None:
            raise EnvironmentOpError("the worker is gone", code="EPIPE")

        host.stat = broken  # type: ignore[method-assign]
        assert await codes(GOOD, host) == ["ENV_HEALTH_CHECK_EXCEPTION"]


class TestRun:
    async def test_it_ends_in_no_steps_with_all_issues(self, bench: Make) -> None:
        task = replace(GOOD, id="?", resources=(Resource("missing"), Resource("")))
        made = await bench(["never asked"])
        environment = made.agent.context.environment
        made.agent._preflight = partial(look, task, environment, SPECS)
        result = await made.run()
        assert result.state.stop is StopReason.TASK_VALIDATION_FAILED
        assert result.state.status is Status.INVALID and result.exit_code == 2
        assert result.step_count == 0 and made.server.requests == []
        found = [event.code for event in made.log.events if isinstance(event, PreflightIssue)]
        assert found == [
            "TASK_ID_INVALID",
            "TASK_RESOURCE_MISSING",
            "TASK_RESOURCE_LOCATOR_MISSING",
        ]
        assert all(code in result.state.detail for code in found)
        assert not any(isinstance(event, StepStarted) for event in made.log.events)
        assert isinstance(made.log.events[-1], RunFinished)

    async def test_what_the_environment_lacks_has_its_own_exit_code(self, bench: Make) -> None:
        made = await bench(["never asked"])
        made.agent._preflight = partial(look, GOOD, Nowhere(), SPECS)
        result = await made.run()
        assert result.state.stop is StopReason.ENV_CAPABILITY_MISMATCH and result.exit_code == 4
        assert result.state.status is Status.FAILED and result.step_count == 0
