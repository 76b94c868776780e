"""``agentcli sessions compact``: shortens the conversation that the model sees, or undoes that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from agentcli import config
from agentcli.agent.compacting import Compaction
from agentcli.agent.state import AgentState
from agentcli.cli.session_options import SessionId
from agentcli.messages import Message, Role
from agentcli.session.store import find_session, load_state
from agentcli.text import counted, escape, one_line


def compact(
    session_id: SessionId,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only show what would be left out.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last compaction.")] = False,
    keep: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="The number of a message to keep as it is; repeatable.", metavar="N"
        ),
    ] = None,
) -> None:
    """Shorten the conversation that the model sees; the session itself stays whole."""
    session_id = find_session(session_id)
    state = load_state(session_id)
    work = _compact(session_id, state, preview=preview, undo=undo, keep=keep or [])
    for line in _lines(asyncio.run(work), state, preview=preview):
        print(escape(line))


async def _compact(
    session_id: str, state: AgentState, *, preview: bool, undo: bool, keep: Sequence[int]
) -> Compaction:
    from agentcli.wiring import open_agent  # slow, and no other command of the group needs it

    folder = Path(state.workspace)
    settings = config.load(folder)
    async with open_agent(
        settings, workspace=folder, model=state.model, mode=state.mode, session_id=session_id
    ) as agent:
        if undo:
            return await agent.uncompact()
        return await agent.compact(preview=preview, keep=keep)


def _lines(done: Compaction, state: AgentState, *, preview: bool) -> list[str]:
    tokens = f"about {done.tokens_before:,} tokens"
    if done.cause == "undone":
        return [f"undone: {tokens} are {done.tokens_after:,} again"]
    if not done.passes:
        return [f"nothing can be left out of {tokens}"]
    lines: list[str] = []
    if preview:
        for stretch in done.replaced:
            for number in range(stretch.first, stretch.end):
                score = f" (score {done.scores[number]:g})" if number in done.scores else ""
                lines.append(f"{number:>5}{score} {_said(state.history[number])}")
    what = "would no longer be" if preview else "are no longer"
    lines.append(
        f"{counted(len(done.dropped), 'message')} of {len(state.history)} {what} shown as they "
        f"were said: {tokens} {'would be' if preview else 'are'} {done.tokens_after:,}"
    )
    lines.append(f"by {', '.join(done.passes)}; the journal keeps everything")
    return lines


def _said(message: Message) -> str:
    if message.role is Role.TOOL:
        return f"{message.result.name}: {one_line(message.result.content, 60)}"
    calls = ", ".join(call.name for call in message.calls)
    return f"{message.role.value}: {one_line(message.text or calls, 60)}"
