"""The screen, cell by cell, against stored snapshots.

The real application shows scripted events. No agent runs and the clocks are stopped, so that the
screen is the same on every machine. After a visible change, run
AGENTCLI_DRAW=1 pytest tests/tui/test_drawn.py to store new snapshots, and review them in git.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentcli.agent.events import (
    Delta,
    Event,
    MessageAdded,
    ModelAnswered,
    Phase,
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
from agentcli.errors import ProviderError
from agentcli.llm.client import TextDelta
from agentcli.messages import FinishReason, Outcome, ToolCall, ToolResult, Usage, assistant, user
from agentcli.tools.approval import Answer, Approval, Reply
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.rules import Rule
from agentcli.tui import presenter, progress
from agentcli.tui.app import ChatApp
from agentcli.tui.chooser import Choice, Chooser
from agentcli.tui.greeting import greeting
from agentcli.tui.options import Options
from agentcli.tui.presenter import Presenter
from agentcli.tui.standing import Standing
from tests.tui.drawn import differences, drawn, store

PATIENCE_S = 60.0
SESSION = SessionStarted(
    "20260101-000000-abcdef", "/repo", "openai:scripted", "ask", "full", (), "0.0"
)
USAGE = Usage(2400, 1800, 0, 120)
STANDING = Standing("openai:scripted", "ask", "full", USAGE, 2520, 128_000, 0.0123)
TASK = "The median of an even number of values is wrong. Fix it."
ANSWER = """\
`median` takes the **upper** of the two middle values:

1. For an *odd* count that is right.
2. For an even count it must be the mean of both.

| count | now | right |
|------:|:---:|-------|
| 3     | ok  | ok    |
| 4     | 3   | 2.5   |

```python
def median(values: list[float]) -> float:
    return (ordered[middle - 1] + ordered[middle]) / 2
```

> 見出し and 🎉 keep their places.
"""
DIFF = """\
--- a/stats.py
+++ b/stats.py
@@ -8,4 +8,6 @@ def median(values):
     ordered = sorted(values)
     middle = len(ordered) // 2
-    return ordered[middle]
+    if len(ordered) % 2:
+        return ordered[middle]
+    return (ordered[middle - 1] + ordered[middle]) / 2
"""
EDIT = ToolCall("c2", "search_replace", '{"path": "stats.py", "old": "x", "new": "y"}')
TEST = ToolCall("c3", "run_tests", '{"path": "test_stats.py"}')
LINES = "\n".join(f"test_stats.py::test_{number} PASSED" for number in range(12))
WORK = [
    TaskGiven(TASK),
    MessageAdded(user(TASK)),
    StepStarted(1),
    ModelAnswered(
        1, assistant("I look at it.", EDIT, TEST), FinishReason.TOOL_CALLS, USAGE, 0.1, 1.0
    ),
    ToolStarted(1, EDIT, "edit"),
    ToolFinished(
        1,
        ToolResult("c2", "search_replace", "replaced 1 occurrence", diff=DIFF, paths=("stats.py",)),
        0.01,
    ),
    ToolStarted(1, TEST, "check"),
    ToolFinished(
        1,
        ToolResult(
            "c3", "run_tests", f"tests failed (exit code 1)\n$ pytest\n{LINES}", Outcome.FAILED
        ),
        2.5,
    ),
    StepFinished(1, 1.0),
    RunFinished(StopReason.FINAL, Status.SOLVED, "done"),
]
WRITING = [
    TaskGiven(TASK),
    MessageAdded(user(TASK)),
    StepStarted(1),
    *(Delta(1, TextDelta(ANSWER[start : start + 7])) for start in range(0, len(ANSWER), 7)),
]
ANSWERED = [
    *WRITING,
    ModelAnswered(1, assistant(ANSWER), FinishReason.STOP, USAGE, 0.1, 1.0),
    StepFinished(1, 1.0),
    RunFinished(StopReason.FINAL, Status.SOLVED, ANSWER),
]


class Still:
    """A conversation whose agent never opens."""

    agent = None
    busy = False

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    async def live(self) -> None:
        await self._closed.wait()

    def interrupt(self) -> bool:
        return False

    def close(self) -> None:
        self._closed.set()


@pytest.fixture
def open_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr(presenter, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "_TICK_S", 1e6)
    monkeypatch.delenv("NO_COLOR", raising=False)

    @asynccontextmanager
    async def opened(
        size: tuple[int, int],
        events: Sequence[Event] = (),
        **options: Any,
    ) -> AsyncIterator[ChatApp]:
        given = Options(tmp_path, tmp_path / "history", notify=False, **options)
        still = Still()
        app = ChatApp(given, lambda **_: still)  # type: ignore[arg-type]
        async with app.run_test(size=size):
            app.session.standing = STANDING
            app.show_standing()
            for entry in greeting(SESSION):
                app.added(entry)
            shown = Presenter(app)
            for event in [SESSION, *events]:
                shown.present(event)
            yield app
            still.close()

    return opened


async def looks_like(app: ChatApp, name: str) -> None:
    """Wait until the screen matches the stored snapshot."""
    if os.environ.get("AGENTCLI_DRAW"):
        await asyncio.sleep(1)
        store(app, name)
    end = asyncio.get_running_loop().time() + PATIENCE_S
    while found := differences(app, name):
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "size", "events", "theme"),
    [
        ("first", (80, 24), [], "dark"),
        ("writing", (80, 24), WRITING, "dark"),
        ("answer-light", (80, 30), ANSWERED, "light"),
        ("answer-contrast-narrow", (60, 20), ANSWERED, "contrast"),
        ("work", (80, 24), WORK, "dark"),
        ("work-wide", (140, 24), WORK, "dark"),
    ],
)
async def test_what_happens(
    open_screen: Callable[..., Any],
    name: str,
    size: tuple[int, int],
    events: list[Event],
    theme: str,
) -> None:
    async with open_screen(size, events, theme=theme) as app:
        if events:
            app.progress.where(Phase.EDIT, 2, 1)
        await looks_like(app, name)


async def test_cards_unfolded(open_screen: Callable[..., Any]) -> None:
    async with open_screen((80, 40), WORK) as app:
        app.transcript.unfold(True)
        await looks_like(app, "work-unfolded")


EDITS = ToolSpec("search_replace", "edits", {}, ToolKind.EDIT)
SHELL = ToolSpec("shell", "runs", {}, ToolKind.RUN, command_argument="command")
COMMAND = "pip install x && rm -r build"


@pytest.mark.parametrize(
    ("name", "size", "approval"),
    [
        ("asks-edit", (80, 24), Approval(EDITS, EDIT, {}, diff=DIFF)),
        (
            "asks-command-narrow",
            (60, 20),
            Approval(
                SHELL,
                ToolCall("c4", "shell", json.dumps({"command": COMMAND})),
                {"command": COMMAND},
                ("pip install x", "rm -r build"),
                Rule("shell", "pip install:*"),
                can_copy=True,
            ),
        ),
    ],
)
async def test_a_question(
    open_screen: Callable[..., Any], name: str, size: tuple[int, int], approval: Approval
) -> None:
    async with open_screen(size) as app:
        asking = asyncio.create_task(app.ask(approval))
        await looks_like(app, name)
        app.say("no")
        assert await asking == Reply(Answer.NO, "no")


async def test_choosing_a_session(open_screen: Callable[..., Any]) -> None:
    sessions = [
        Choice("1", TASK, "27 Nov 10:12 · solved"),
        Choice("2", "見出し: translate the docs", "26 Nov 18:40 · cancelled · /other"),
    ]
    async with open_screen((80, 24)) as app:
        choosing = asyncio.create_task(app.choose("Go on with which session?", sessions))
        await looks_like(app, "sessions")
        app.query_one(Chooser).leave()
        assert await choosing is None


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (100, 40)])
async def test_a_long_list_with_a_preview_fits_with_all_below_it(
    open_screen: Callable[..., Any], size: tuple[int, int]
) -> None:
    many = [Choice(str(number), f"message {number}") for number in range(50)]
    async with open_screen(size) as app:
        choosing = asyncio.create_task(
            app.choose("Go back?", many, look=lambda chosen: "\n".join("previewed" * 11))
        )
        end = asyncio.get_running_loop().time() + PATIENCE_S
        keys, status = "enter chooses", "ask · openai:scripted"
        while len(_seen(app, keys, "╰───", status)) < 3:
            assert asyncio.get_running_loop().time() < end, "\n".join(drawn(app))
            await asyncio.sleep(0.05)
        app.query_one(Chooser).leave()
        assert await choosing is None


def _seen(app: ChatApp, *words: str) -> set[str]:
    text = "\n".join(drawn(app)[: app.size.height])
    return {word for word in words if word in text}


async def test_completing_a_command(open_screen: Callable[..., Any]) -> None:
    async with open_screen((60, 20)) as app:
        app.prompt.set_text("/co")
        await looks_like(app, "commands-narrow")


async def test_an_error(open_screen: Callable[..., Any]) -> None:
    async with open_screen((60, 20)) as app:
        error = ProviderError(
            "the key was refused (401)", hint="Set OPENAI_API_KEY, or choose another --model"
        )
        app.fail(error)
        await looks_like(app, "error-narrow")
