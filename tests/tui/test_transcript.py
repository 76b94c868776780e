"""The transcript on its own: layout, scroll position and selection."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

import agentcli.tui
from agentcli.messages import Image, ToolCall, ToolResult
from agentcli.tui.entries import Answered, Said, Told, Used
from agentcli.tui.themes import THEMES
from agentcli.tui.transcript import Transcript

SIZE = (60, 20)


class Shell(App[None]):
    """An application with only a transcript."""

    CSS_PATH = Path(agentcli.tui.__file__).parent / "chat.tcss"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = "dark"
        self.transcript = Transcript()

    def compose(self) -> ComposeResult:
        yield self.transcript

    @property
    def rows(self) -> list[str]:
        strips = self.screen._compositor.render_strips(self.screen.size)
        return ["".join(segment.text for segment in strip)[:58].rstrip() for strip in strips]


@asynccontextmanager
async def transcript() -> AsyncIterator[tuple[Shell, Transcript, Pilot[None]]]:
    app = Shell()
    async with app.run_test(size=SIZE) as pilot:
        yield app, app.transcript, pilot


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def card(number: int) -> Used:
    output = "".join(f"line {n} of {number}\n" for n in range(30))
    call = ToolCall(f"c{number}", "shell", f'{{"command": "run {number}"}}')
    return Used(call, "run", b"", ToolResult(call.id, "shell", f"exit code 0\n{output}"))


async def test_a_card_names_the_images_of_its_result() -> None:
    async with transcript() as (app, view, _):
        shot = Image(b"1", "image/png", "shot.png")
        result = ToolResult("1", "look", "Looked.\nAt this.", images=(shot,))
        view.load([Used(ToolCall("1", "look"), "read", b"", result)])
        await until(lambda: any("[image shot.png]" in row for row in app.rows))
        assert any("2 lines" in row for row in app.rows)


async def test_of_many_entries_only_those_near_are_laid_out() -> None:
    async with transcript() as (app, view, pilot):
        view.load([Told(f"note {n}") for n in range(5000)])
        assert view.laid_out < 200 and "note 4999" in app.rows[-2]
        await until(lambda: view.allow_vertical_scroll)
        for _ in range(60):
            view.scroll_page_up(animate=False)
        await pilot.pause()
        assert view.laid_out < 400 and not view.at_end
        first = next(row for row in app.rows if "note" in row)
        assert int(first.split()[-1]) < 4999 - 60 * 8
        view.scroll_to(y=view.scroll_y + 40, animate=False)
        view.show_end()
        assert "note 4999" in app.rows[-2] and view.at_end


async def test_what_is_looked_at_stays_while_all_about_it_changes() -> None:
    async with transcript() as (app, view, pilot):
        growing = Answered("first", streaming=True)
        notes = [Told(f"note {n}") for n in range(60)]
        view.load([growing, *notes])
        view.scroll_to(y=12, animate=False, force=True)
        await until(lambda: not view.at_end)
        seen = app.rows
        growing.text += "\n\nmore" * 5
        view.grew(growing, "\n\nmore" * 5)
        view.prepend([Told(f"earlier {n}") for n in range(30)])
        view.added(Told("a last one"))
        view.removed(notes[-1])
        await until(lambda: view.drawn)
        await pilot.pause()
        assert app.rows == seen
        await pilot.resize_terminal(40, 20)
        await until(lambda: view.size.width == 40)
        assert app.rows[0] == seen[0][:38].rstrip()


async def test_what_changes_is_drawn_also_where_the_clock_leaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine, the time of a frame may pass before anything waits for it."""
    async with transcript() as (app, view, _):
        view.load([Told("before")])
        leaps = itertools.chain(range(1, 9), itertools.repeat(8))
        monkeypatch.setattr("textual._time.get_time", lambda: time.monotonic() + next(leaps))
        view.added(Told("and after"))
        await until(lambda: view.drawn)
        await until(lambda: "and after" in "\n".join(app.rows))


async def test_other_entries_take_the_place_of_all_that_was_there() -> None:
    async with transcript() as (app, view, _):
        view.load([Told(f"before {n}") for n in range(8)])
        for count in (3, 8, 0, 12):  # fewer, as many, none, more
            view.load([])
            view.load([Told(f"now {count} {n}") for n in range(count)])
            view.added(Told(f"and then {count}"))
            await until(lambda: view.drawn)
            text = "\n".join(app.rows)
            assert text.count("now ") == min(count, 9) and text.count("and then ") == 1, text
            assert "before" not in text


async def test_a_click_unfolds_a_card_and_another_folds_it() -> None:
    async with transcript() as (app, view, pilot):
        view.load([card(1), card(2)])
        assert "line 5 of 2" not in "\n".join(app.rows)
        row = next(n for n, text in enumerate(app.rows) if "run 2" in text)
        await pilot.click(offset=(6, row))
        view.scroll_to(y=8, animate=False)
        await until(lambda: any("line 5 of 2" in text for text in app.rows))
        view.unfold(False)
        assert "line 5 of 2" not in "\n".join(app.rows)


async def test_a_selection_is_copied_in_lines_as_they_were_written() -> None:
    words = " ".join(f"word{n}" for n in range(30))
    async with transcript() as (app, view, pilot):
        view.load([Said("hello there"), Answered(f"{words}\n\n- one\n- two")])
        top = next(n for n, text in enumerate(app.rows) if "hello" in text)
        end = next(n for n, text in enumerate(app.rows) if "• two" in text)
        await pilot.mouse_down(offset=(10, top))
        await pilot.hover(offset=(6, end))
        await pilot.mouse_up(offset=(6, end))
        copied = app.screen.get_selected_text()
        assert copied is not None
        lines = copied.split("\n")
        assert lines[0] == "there" and words in lines and lines[-2] == "• one"


async def test_two_clicks_select_a_line_and_three_an_entry() -> None:
    async with transcript() as (app, view, pilot):
        view.load([Told("before"), Answered("some words\n\nand others"), Told("after")])
        row = next(n for n, text in enumerate(app.rows) if "some words" in text)
        await pilot.click(offset=(5, row), times=2)
        assert app.screen.get_selected_text() == "some words"
        app.screen.clear_selection()
        await pilot.click(offset=(5, row), times=3)
        assert app.screen.get_selected_text() == "some words\n\nand others"


async def test_a_theme_colours_what_is_there_already() -> None:
    async with transcript() as (app, view, _):
        view.load([Told("a note")])
        await until(lambda: "#15171c" in app.export_screenshot())
        app.theme = "light"
        await until(lambda: "#15171c" not in app.export_screenshot())
