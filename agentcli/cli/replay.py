"""Runs a session again in a copy of its files, with its recorded answers or another model."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

from agentcli import config
from agentcli.agent.events import Status
from agentcli.agent.state import AgentState, Totals
from agentcli.cli.errors import show_error
from agentcli.cli.open import open_renderer
from agentcli.cli.render import Output, Summary
from agentcli.errors import UsageError
from agentcli.folders import data_folder
from agentcli.llm.client import ModelInfo
from agentcli.llm.replay import Replay
from agentcli.messages import Message, Role, ToolResult
from agentcli.session.forking import answers_after, fork_into
from agentcli.session.store import journal_path, load_state, new_session_id
from agentcli.session.timetravel import mark_of
from agentcli.text import escape
from agentcli.wiring import open_agent

_TIMES = re.compile(r"\d+(\.\d+)? ?m?s\b")  # these differ from run to run


async def replayed(session_id: str, step: int, model: str | None, workspace: Path | None) -> int:
    """Run the tasks that follow the end of ``step`` again; returns the exit code.

    Raises:
        AgentCLIError: the replay cannot begin.
    """
    state = load_state(session_id)
    mark = mark_of(state, step)
    answers = answers_after(state, mark)
    if not answers:
        raise UsageError(f"session {session_id}: nothing follows the end of step {step}")
    name = Path(state.workspace).name
    folder = workspace or data_folder() / "replays" / new_session_id() / name
    new_id = await asyncio.to_thread(fork_into, state, mark, folder)
    print(f"session {new_id} in {folder}", file=sys.stderr)
    settings = config.load(folder)
    recorded = None
    if model is None:
        info = ModelInfo(state.model, "replay")
        recorded = Replay(info, answers, f"session {session_id}")
    renderer = open_renderer(Output.TEXT)
    code, started = 0, time.monotonic()
    cost: float | None = 0.0
    async with open_agent(
        settings,
        workspace=folder,
        model=model or f"replay:{journal_path(session_id)}",
        mode="auto",
        session_id=new_id,
        client=recorded,
    ) as agent:
        before = agent.state
        try:
            for task, checks in _turns(state, mark):
                work = agent.start(task, checks=checks)
                async for event in work:
                    renderer.event(event)
                result = await work.result()
                code = max(code, result.exit_code)
                spent = result.state.cost_usd
                cost = None if cost is None or spent is None else cost + spent
        finally:
            renderer.close()
        # Sum up all turns, as each is a separate run.
        used = Totals(before.step, before.tool_calls, before.usage)
        whole = replace(agent.state, before=used, cost_usd=cost)
        renderer.finish(Summary(whole, code, time.monotonic() - started))
        if agent.state.status in (Status.FAILED, Status.INVALID):
            show_error(agent.state.detail)
        if model is None:
            return max(code, _compared(state, agent.state, mark))
    return code


def _turns(state: AgentState, mark: int) -> list[tuple[str, tuple[str, ...]]]:
    """The tasks to run, with their checks; the text "" continues the task in progress at ``mark``.

    A task that was undone leaves a mark without answers after it, and is skipped.
    """
    marks = [*state.marks.since(mark), state]
    turns = [
        (following.task, following.checks)
        for place, following in itertools.pairwise(marks)
        if place.turn and _answered(place, following)
    ]
    begun = not marks[0].turn and _answered(marks[0], marks[1])
    return [("", ()), *turns] if begun else turns


def _answered(before: AgentState, after: AgentState) -> bool:
    said: list[Message] = after.history.since(len(before.history))
    return any(message.role is Role.ASSISTANT for message in said)


def _compared(before: AgentState, after: AgentState, mark: int) -> int:
    """Print which tools gave results other than the recorded ones; returns 1 if any, else 0."""
    start = len(before.marks[mark].history)
    pairs = zip(_results(before, start), _results(after, start), strict=False)
    others = [one for one, other in pairs if _plain(one) != _plain(other)]
    for result in others:
        print(f"{escape(result.name)} ({result.call_id}) gave another result", file=sys.stderr)
    return 1 if others else 0


def _results(state: AgentState, start: int) -> list[ToolResult]:
    said: list[Message] = state.history.since(start)
    return [message.result for message in said if message.role is Role.TOOL]


def _plain(result: ToolResult) -> tuple[str, str]:
    return result.outcome.value, _TIMES.sub("", result.content)
