"""Background commands: they keep running, can be read and killed, and end with the session."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcli.messages import Outcome, ToolCall, ToolResult
from agentcli.prompts import Prompts
from agentcli.tools import shell
from agentcli.tools.background import MOST_RUNNING, MOST_UNREAD, Job, Jobs
from agentcli.tools.base import ToolContext, ToolKind
from agentcli.tools.jobs import jobs_tool
from agentcli.tools.registry import Registry
from tests.running import running_with, survivors
from tests.tools.conftest import TOOLS, Call


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    jobs = Jobs()
    yield jobs
    await jobs.aclose()


@pytest.fixture
def call(context: ToolContext, jobs: Jobs) -> Call:
    registry = Registry([*TOOLS, jobs_tool(Prompts.standard(), jobs)])

    async def dispatch(name: str, **arguments: Any) -> ToolResult:
        call = ToolCall("1", name, json.dumps(arguments))
        return await registry.dispatch(call, replace(context, jobs=jobs))

    return dispatch


async def test_a_job_runs_beside_other_calls_and_is_read_in_parts(
    call: Call, workspace: Path
) -> None:
    script = "echo one; until [ -e go ]; do sleep 0.05; done; echo two >&2; exit 3"
    seen = (await call("shell", command=script, background=True)).content
    assert seen.startswith('running in the background; id "1"')
    while "\none" not in seen:  # a busy machine may take a while
        seen += (await call("jobs", action="read", id="1", wait_s=20)).content
    assert (await call("jobs", action="read", id="1")).content.endswith("s]\n[nothing new]")
    assert "\trunning for " in (await call("jobs")).content
    assert (await call("shell", command="touch go")).outcome is Outcome.OK
    assert (await call("jobs", action="read", id="1", wait_s=20)).content.endswith("\ntwo")
    last = (await call("jobs", action="read", id="1", wait_s=20)).content
    assert last == "[1: exit code 3]\n[nothing new]"
    assert (await call("jobs")).content.startswith("1\texit code 3\techo one; until")


async def test_it_is_killed_with_all_that_it_started(call: Call, jobs: Jobs) -> None:
    word = f"86{os.getpid()}"
    script = f"(sleep {word}1 &); sleep {word}2"
    await call("shell", command=script, background=True)
    processes = running_with(f"{word}1") + running_with(f"{word}2")
    assert len(processes) >= 2
    assert (await call("jobs", action="kill", id="1")).content.startswith("[1: killed]")
    assert survivors(processes) == []


async def test_all_of_them_end_with_the_session(call: Call, jobs: Jobs) -> None:
    word = f"87{os.getpid()}"
    for number in range(2):
        await call("shell", command=f"sleep {word}{number}", background=True)
    processes = running_with(word)
    assert len(processes) >= 2
    await jobs.aclose()
    assert survivors(processes) == []
    assert [job.running for job in jobs] == [False, False]


async def test_an_immediate_failure_is_reported_at_once(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_AT_ONCE_S", 60.0)  # for a busy machine
    result = await call("shell", command="echo no such port >&2; exit 1", background=True)
    assert result.outcome is Outcome.FAILED
    assert result.content == "ended at once: exit code 1\n[stderr]\nno such port"


async def test_output_that_nobody_reads_is_bounded(call: Call, jobs: Jobs, workspace: Path) -> None:
    flood = "head -c 2000000 /dev/zero | tr '\\0' x; echo; echo end"
    script = f"until [ -e go ]; do sleep 0.05; done; {flood}; sleep 600"
    await call("shell", command=script, background=True)
    (workspace / "go").touch()
    job = jobs.get("1")
    async with asyncio.timeout(60):
        while "end" not in job._unread:
            await asyncio.sleep(0.02)
            assert len(job._unread) <= MOST_UNREAD
    assert job._dropped > 2_000_000 - MOST_UNREAD
    content = (await call("jobs", action="read", id="1")).content
    assert "characters left out]" in content and content.endswith("xx\nend")
    assert len(content) < 31_000


async def test_characters_that_come_in_pieces() -> None:
    job = Job("1", "x")
    for byte in "größer".encode():
        job._add("stdout", bytes([byte]))
    assert job.read(100) == "größer"
    assert job.read(100) == ""


async def test_sequences_and_lines_in_pieces(context: ToolContext) -> None:
    job = Job("1", "x")
    job.start(context.environment, ("sleep", "60"), context.command)
    for piece in (b"10%\r", b"20%\r", b"\x1b[3"):
        job._add("stdout", piece)
    assert job.read(100) == "20%"
    job._add("stdout", b"1mred\r")
    assert job.read(100) == "red"
    job._add("stdout", b"\n30%\r")
    assert job.tail == "red\n30%"
    await job.kill()


async def test_the_number_of_jobs_is_limited(call: Call, jobs: Jobs, context: ToolContext) -> None:
    for number in range(MOST_RUNNING):
        jobs.start(context.environment, f"sleep {number}", ("sleep", "60"), context.command)
    result = await call("shell", command="sleep 60", background=True)
    assert (result.outcome, "kill one first" in result.content) == (Outcome.ERROR, True)


async def test_unknown_jobs_and_missing_arguments(call: Call, context: ToolContext) -> None:
    assert (await call("jobs")).content == "no background commands"
    assert "there are: none" in (await call("jobs", action="read", id="7")).content
    assert '"id" is missing' in (await call("jobs", action="kill")).content
    one = ToolCall("1", "shell", '{"command": "sleep 60", "background": true}')
    result = await Registry(TOOLS).dispatch(one, context)
    assert result.outcome is Outcome.ERROR and "can stay in the background" in result.content


def test_a_check_in_the_background_does_not_count_as_a_check() -> None:
    registry = Registry(TOOLS)
    command: dict[str, Any] = {"command": "pytest -q"}
    assert registry.purpose(ToolCall("1", "shell", json.dumps(command))) is ToolKind.CHECK
    command["background"] = True
    assert registry.purpose(ToolCall("1", "shell", json.dumps(command))) is ToolKind.RUN
