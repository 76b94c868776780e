"""The live display of a run, read back from an emulated terminal."""

from __future__ import annotations

import io

import pyte
import pytest
from rich.console import Console

from agentcli.agent.events import (
    CheckFinished,
    CheckStarted,
    Delta,
    Event,
    StepStarted,
    ToolFinished,
)
from agentcli.cli.live import LiveRenderer, rendered_markdown
from agentcli.llm.client import TextDelta
from agentcli.messages import Outcome, ToolResult
from tests.cli.events import HOSTILE, run_events, summary

COLUMNS, LINES = 100, 80


class Terminal(io.StringIO):
    """A stream that claims to be a terminal and can show its screen."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        screen = pyte.Screen(COLUMNS, LINES)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return "\n".join(line.rstrip() for line in screen.display).strip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(LINES))
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def play(terminal: Terminal, answer: io.StringIO | None = None) -> str:
    events = run_events()
    renderer = LiveRenderer(terminal, answer=answer)
    for event in events:
        renderer.event(event)
    renderer.finish(summary(events))
    return terminal.screen()


def test_the_whole_run(terminal: Terminal) -> None:
    screen = play(terminal)
    for expected in (
        "sandbox full",
        "Let me look.",
        "● read_file stats.py start=3\n  2 lines (0.0 s)",
        "● search_replace stats.py",
        "  -    old\n  +    new",
        "● run_tests\n  tests failed (exit code 1) [failed] (1 min 5 s)\n  … 15 earlier lines",
        "attempt 1 failed: the server is busy",
        "answer not used: the answer was empty",
        "Use List<int> and <T>.",
        "check passed: pytest -q",
        "solved · 3 steps",
        "changed stats.py",
    ):
        assert expected in screen
    assert "thinking" not in screen, "what was under way is gone at the end"


def test_diffs_and_outcomes_are_coloured(terminal: Terminal) -> None:
    play(terminal)
    assert "\x1b[32m  +    new" in terminal.getvalue()
    assert "\x1b[31m  -    old" in terminal.getvalue()


def test_no_color_leaves_no_colour(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = play(terminal)
    assert "+    new" in screen
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"):
        assert code not in terminal.getvalue()


def test_nothing_that_a_model_or_tool_says_reaches_the_terminal_as_a_command(
    terminal: Terminal,
) -> None:
    play(terminal)
    written = terminal.getvalue()
    assert HOSTILE not in written
    for command in ("\x1b]0;", "\x1b[2Jred", "\u202e", "\x07", "\x00"):
        assert command not in written


def test_entities_cannot_deceive(terminal: Terminal) -> None:
    Console(file=terminal).print(rendered_markdown("a&#x202e;b &lt; **c&#x200b;**"))
    assert r"a\u202eb < c\u200b" in terminal.screen()


def test_text_streams_before_it_is_complete(terminal: Terminal) -> None:
    events = run_events()
    renderer = LiveRenderer(terminal, answer=None)
    for event in events[:7]:
        renderer.event(event)
    renderer._live.refresh()
    screen = terminal.screen()
    renderer.close()
    assert "Let me look." in screen
    assert "writing · explore · step 1" in screen


def test_a_running_tool_shows_the_end_of_its_output(terminal: Terminal) -> None:
    events = run_events()
    renderer = LiveRenderer(terminal, answer=None)
    for event in events[:20]:
        renderer.event(event)
    renderer._live.refresh()
    screen = terminal.screen()
    renderer.close()
    assert "● run_tests (" in screen
    assert "collecting" in screen


def test_what_an_interrupted_run_has_shown_stays(terminal: Terminal) -> None:
    events = run_events()
    cut = ToolFinished(2, ToolResult("3", "run_tests", "interrupted", Outcome.CANCELLED))
    more: list[Event] = [*events[:20], cut, StepStarted(3), Delta(3, TextDelta("Now I think"))]
    renderer = LiveRenderer(terminal, answer=None)
    for event in more:
        renderer.event(event)
    renderer.finish(summary(more, 130))
    screen = terminal.screen()
    assert "interrupted [cancelled] (0.0 s)" in screen
    assert "  collecting" in screen and "Now I think" in screen
    assert "step 3" not in screen  # the bottom is gone


def test_the_answer_also_goes_to_a_stdout_that_is_no_terminal(terminal: Terminal) -> None:
    answer = io.StringIO()
    play(terminal, answer)
    assert answer.getvalue().startswith("Done <T>.")


def test_the_cursor_is_shown_again(terminal: Terminal) -> None:
    play(terminal)
    written = terminal.getvalue()
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l") >= 0


def test_a_running_check_stands_below(terminal: Terminal) -> None:
    renderer = LiveRenderer(terminal, answer=None)
    renderer.event(CheckStarted("pytest -q", 1, 3))
    renderer._live.refresh()
    assert "checking: pytest -q (0" in terminal.screen()
    renderer.event(CheckFinished("pytest -q", False, 1, "1 failed\n"))
    renderer._live.refresh()
    screen = terminal.screen()
    renderer.close()
    assert "check failed (exit code 1): pytest -q\n  1 failed" in screen
    assert "checking" not in screen
