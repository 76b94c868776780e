"""A session of thousands of messages opens at once, and all of it can be scrolled to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agentcli.agent.events import (
    Event,
    MessageAdded,
    ModelAnswered,
    Rewound,
    RunFinished,
    SessionStarted,
    Status,
    StepFinished,
    StepStarted,
    StopReason,
    TaskGiven,
    ToolFinished,
    ToolStarted,
)
from agentcli.agent.folding import fold_all
from agentcli.messages import FinishReason, Outcome, ToolCall, ToolResult, Usage, assistant, user
from agentcli.session.journal import Journal
from agentcli.tui.entries import Answered, Said, Used
from agentcli.tui.past import before, tail
from tests.server import Reply
from tests.tui.conftest import Start

SESSION = "20260101-000000-abcdef"
TURNS = 1250
FEW = 120


def events(workspace: Path, turns: int) -> Iterator[Event]:
    """Four messages per turn: a question, a call, its result and an answer."""
    yield SessionStarted(SESSION, str(workspace), "openai:scripted", "ask", "full", (), "0")
    for turn in range(turns):
        step, call = 2 * turn + 1, ToolCall(f"c{turn}", "read_file", '{"path": "a.py"}')
        yield TaskGiven(f"question {turn}")
        yield MessageAdded(user(f"question {turn}"))
        yield StepStarted(step)
        asked = FinishReason.TOOL_CALLS
        yield ModelAnswered(step, assistant("", call), asked, Usage(10, 0, 0, 5), 0.1, 0.2)
        yield ToolStarted(step, call, "read")
        yield ToolFinished(step, ToolResult(call.id, "read_file", "1\tx = 1\n"), 0.01)
        yield StepFinished(step, 0.3)
        yield StepStarted(step + 1)
        told = assistant(f"answer {turn}")
        yield ModelAnswered(step + 1, told, FinishReason.STOP, Usage(10, 0, 0, 5), 0.1, 0.2)
        yield StepFinished(step + 1, 0.3)
        yield RunFinished(StopReason.FINAL, Status.SOLVED, f"answer {turn}")


async def write(home: Path, session: Iterable[Event]) -> Path:
    """Write the journal of a session."""
    journal = Journal(home / "data" / "sessions" / SESSION / "events.jsonl")
    for event in session:
        await journal.append(event)
    journal.close()
    return journal.path


async def test_the_end_of_5000_messages_is_read_without_the_rest(
    home: Path, workspace: Path
) -> None:
    journal = await write(home, events(workspace, TURNS))
    end = tail(journal)
    assert 0 < len(end.entries) < 800 and end.start > 0
    assert isinstance(end.entries[0], Said)  # starts at a turn
    assert [e.text for e in end.entries if isinstance(e, Answered)][-1] == f"answer {TURNS - 1}"
    earlier = before(journal, end.start)
    said = [e.text for e in [*earlier, *end.entries] if isinstance(e, Said)]
    assert said == [f"question {n}" for n in range(TURNS)]  # no duplicates, no gaps


async def test_a_last_turn_longer_than_a_tail_is_read_whole(home: Path, workspace: Path) -> None:
    one_turn = [e for e in events(workspace, TURNS) if not isinstance(e, TaskGiven)]
    journal = await write(home, [*list(events(workspace, 3)), TaskGiven("go"), *one_turn[1:]])
    end = tail(journal)
    entries = [*before(journal, end.start), *end.entries]
    calls = [entry for entry in entries if isinstance(entry, Used)]
    assert len(calls) == TURNS + 3
    assert all(call.result and call.result.outcome is Outcome.OK for call in calls)


async def test_turns_that_were_undone_are_not_shown_again(home: Path, workspace: Path) -> None:
    session = list(events(workspace, TURNS))
    marks = fold_all(session).marks
    turns = [number for number, mark in enumerate(marks) if mark.turn]
    journal = await write(home, [*session, Rewound(turns[-10], {}, {})])
    end = tail(journal)
    said = [e.text for e in [*before(journal, end.start), *end.entries] if isinstance(e, Said)]
    assert said == [f"question {n}" for n in range(TURNS - 10)]


async def test_it_opens_at_its_end_and_scrolls_upwards(
    chat: Start, home: Path, workspace: Path
) -> None:
    await write(home, events(workspace, FEW))
    async with chat([Reply(text="new answer")], session_id=SESSION) as one:
        await one.sees(f"answer {FEW - 1}")
        transcript = one.app.transcript
        await one.until(lambda: len(one.entries(Said)) == FEW, "all of it read")
        assert transcript.laid_out < 150  # rows exist only near the view
        seen: set[str] = set()

        def settled() -> bool:
            return transcript.drawn and transcript.scroll_y == transcript.scroll_target_y

        while len(seen) < 6:
            below = one.rows
            await one.press("pageup")

            def moved(below: list[str] = below) -> bool:
                return settled() and one.rows != below

            await one.until(moved)
            seen |= {row.strip() for row in one.rows if "answer" in row}
        await one.until(lambda: f"answer {FEW - 1}" not in one.text)

        def at_its_beginning() -> bool:
            transcript.scroll_home(animate=False)
            return "question 0" in one.text and transcript.laid_out <= 150

        await one.until(at_its_beginning, "what is far below lost its rows")
        await one.press("ctrl+end")
        await one.sees(f"answer {FEW - 1}")
        await one.idle()
        await one.send("one more")
        await one.idle()
        await one.sees("new answer")
        assert len(one.agent.state.history) >= 4 * FEW + 2


def text_of(rows: list[str]) -> list[str]:
    """The rows without the scroll bar, whose thumb shrinks as the answer grows."""
    return [row[:90].rstrip() for row in rows]


async def test_what_is_looked_at_stays_while_the_answer_streams(chat: Start) -> None:
    first = "\n\n".join(f"paragraph {n}" for n in range(60))
    more = "\n\n".join(f"later {n}" for n in range(60))
    async with chat(
        [Reply(text=first), Reply(text=more, piece=12, split=400, pause_s=0.05)]
    ) as one:
        await one.send("first")
        await one.idle()
        await one.send("second")
        await one.until(lambda: "later" in one.text)
        await one.press("pageup", "pageup")
        view = one.app.transcript
        await one.until(lambda: "paragraph" in one.text and view.scroll_y == view.scroll_target_y)
        before = text_of(one.rows[:20])
        await one.idle()
        assert text_of(one.rows[:20]) == before
        await one.press("ctrl+end")
        await one.sees("later 59")
