"""Commands, completion, sessions, copying and the layout of the screen."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual import events

from agentcli.messages import ASIDE, Outcome
from agentcli.tui.app import MARK
from agentcli.tui.chooser import Chooser
from agentcli.tui.entries import Answered, Said, Shown, Told, Used
from tests.server import Reply
from tests.tui.conftest import Start


async def test_files_are_completed_without_ignored_ones(chat: Start, workspace: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "src" / "domain.py").write_text("x")
    (workspace / "domain.log").write_text("x")
    (workspace / ".gitignore").write_text("*.log\n")
    (workspace / ".git").mkdir()
    async with chat([Reply(text="ok")]) as one:
        await one.idle()
        await one.type("see @doma")
        await one.until(lambda: one.app.completion.is_open, "what was listed meanwhile offered")
        await one.sees("@src/domain.py")
        assert "domain.log" not in one.text
        await one.press("tab")
        assert one.app.prompt.text == "see @src/domain.py "
        await one.press("tab")  # no turn runs, so nothing is queued
        assert one.app.prompt.text == "see @src/domain.py " and not one.entries(Said)


async def test_commands_are_completed_and_run(chat: Start) -> None:
    async with chat() as one:
        await one.idle()
        await one.type("/he")
        await one.sees("/help", "keys and commands")
        await one.press("enter")
        await one.until(lambda: one.entries(Shown))
        await one.sees("/quit")
        assert one.app.prompt.text == ""


async def test_keys_that_overtake_the_completion_are_not_completed_by_it(chat: Start) -> None:
    async with chat() as one:
        await one.idle()
        await one.type("/")
        await one.sees("/help", "keys and commands")
        one.burst("cost\n")  # in one read, as on a slow connection
        await one.until(lambda: one.entries(Shown) or one.entries(Said))
        assert not one.entries(Said) and "/cos" not in one.app.prompt.text
        await one.type("/")
        await one.until(lambda: one.app.completion.is_open)
        one.burst("he\t")
        await one.until(lambda: one.app.prompt.text.startswith("/he"))
        assert not one.entries(Said) and len(one.entries(Shown)) == 1


async def test_init_has_the_model_describe_the_project(chat: Start) -> None:
    async with chat([Reply(text="Written.")]) as one:
        await one.idle()
        await one.send("/init mention the docs")
        await one.until(lambda: one.entries(Answered))
        (said,) = one.entries(Said)
        assert said.text.startswith("Write the AGENTS.md") and said.text.endswith(
            "mention the docs"
        )


async def test_an_unknown_command_is_told_and_not_sent(chat: Start) -> None:
    async with chat() as one:
        await one.send("/nonsense")
        await one.sees("there is no command /nonsense", "/help lists them")
        assert not one.entries(Said)


async def test_a_command_of_ones_own_is_sent(chat: Start, home: Path) -> None:
    folder = home / "config" / "commands"
    folder.mkdir(parents=True)
    (folder / "review.md").write_text("Review $ARGUMENTS with care")
    async with chat([Reply(text="fine")], command_folders=(folder,)) as one:
        await one.idle()
        await one.send("/review a.py")
        await one.until(lambda: one.entries(Answered))
        assert one.entries(Said)[0].text == "Review a.py with care"


async def test_help_shows_a_description_as_it_is(chat: Start, home: Path) -> None:
    folder = home / "config" / "commands"
    folder.mkdir(parents=True)
    (folder / "tidy.md").write_text("---\ndescription: sort *.py | *.ts, then `rg`\n---\nTidy.")
    async with chat(command_folders=(folder,)) as one:
        await one.idle()
        await one.send("/help")
        await one.sees("/tidy [TEXT]", "sort *.py | *.ts, then `rg`")


async def test_a_shell_command_runs_in_the_sandbox_and_the_model_is_told(
    chat: Start, workspace: Path
) -> None:
    (workspace / "here.txt").write_text("x")
    async with chat([Reply(text="I see.")]) as one:
        await one.idle()
        await one.send("!ls; touch /outside-of-it; false")
        await one.until(lambda: (used := one.entries(Used)) and used[0].result)
        await one.sees("here.txt", "exit code 1")
        assert "cannot touch" in one.text
        assert not Path("/outside-of-it").exists()
        await one.send("why?")
        await one.idle()
        _, told, asked, _ = (message.text for message in one.agent.state.history)
        assert "$ ls; touch /outside-of-it; false\n" in told and "here.txt" in told
        assert told.startswith(ASIDE)  # not by the user: it may be compacted
        assert asked == "why?" and [entry.text for entry in one.entries(Said)] == ["why?"]


async def test_esc_ends_a_shell_command_and_the_model_is_told_what_it_printed(chat: Start) -> None:
    async with chat([Reply(text="I see.")]) as one:
        await one.idle()
        await one.send("!echo begun; sleep 600")
        await one.until(lambda: (used := one.entries(Used)) and b"begun" in used[0].output)
        await one.press("escape")
        await one.until(lambda: one.entries(Used)[0].result)
        await one.sees("interrupted")
        assert one.entries(Used)[0].result.outcome is Outcome.CANCELLED
        await one.send("why?")
        await one.idle()
        told = one.agent.state.history[1].text
        assert "$ echo begun; sleep 600\ninterrupted\nbegun" in told


async def test_a_hint_stays_for_its_own_time(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcli.tui.app._TWICE_S", 2.0)
    async with chat() as one:
        await one.idle()
        await one.press("escape")
        await asyncio.sleep(1.4)
        await one.press("ctrl+c")
        await asyncio.sleep(1.0)  # the first hint's time is over, the second one's is not
        assert "press ctrl+c again to quit" in one.text
        await one.until(lambda: "again" not in one.text, "no hint")


async def test_a_misspelt_preview_shortens_nothing(chat: Start) -> None:
    async with chat([Reply(text="hello")]) as one:
        await one.send("hello")
        await one.idle()
        await one.send("/compact previw")
        await one.sees("/compact previw is not known", "/compact preview")


async def test_esc_ends_the_shortening_of_a_conversation(chat: Start) -> None:
    go_on = threading.Event()
    long = [Reply(text=f"Answer {n}. " + "many words " * 3000) for n in range(6)]
    async with chat([*long, Reply(text="late", until=go_on), Reply(text="At once.")]) as one:
        for number in range(6):
            await one.send(f"question {number}")
            await one.idle()
        await one.send("/compact")
        await one.sees("Shortening the conversation")
        await one.send("meanwhile")
        await one.press("escape")
        await one.sees("the conversation is as it was", "At once.")
        assert one.agent.state.compactions == ()
        go_on.set()


async def test_a_command_run_during_a_turn_is_told_before_the_next_step(chat: Start) -> None:
    go_on = threading.Event()
    slow = Reply(calls=[("list_dir", {})], until=go_on)
    async with chat([slow, Reply(text="I see.")]) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        await one.send("!echo meanwhile")
        await one.until(lambda: (used := one.entries(Used)) and used[0].result)
        go_on.set()
        await one.idle()
        texts = [message.text for message in one.agent.state.history]
        assert [n for n, text in enumerate(texts) if "$ echo meanwhile\n" in text] == [4]


async def test_tools_cost_trace_and_diff_are_shown(chat: Start, workspace: Path) -> None:
    (workspace / "a.py").write_text("x = 1\n")
    edit = {"path": "a.py", "old": "x = 1", "new": "x = 2"}
    script = [Reply(calls=[("search_replace", edit)]), Reply(text="done")]
    async with chat(script, mode="auto", size=(100, 60)) as one:
        await one.send("go")
        await one.idle()
        for command, seen in (
            ("/cost", "200 tokens"),
            ("/trace", "events.jsonl"),
            ("/diff", "1 file changed"),
            ("/tools", "search_replace"),
            ("/mcp", "no MCP server is configured"),
        ):
            await one.send(command)
            await one.sees(seen)


async def test_copy_and_export(chat: Start, workspace: Path) -> None:
    async with chat([Reply(text="the **answer**")]) as one:
        await one.send("what?")
        await one.idle()
        await one.send("/copy")
        await one.until(lambda: one.app.clipboard == "the **answer**")
        await one.send("/export out.md")
        await one.until(lambda: (workspace / "out.md").exists())
        text = (workspace / "out.md").read_text()
        assert "what?" in text and "the **answer**" in text
        (workspace / "out.md").write_text("mine")
        await one.send("/export out.md")
        await one.sees("out.md exists")
        assert (workspace / "out.md").read_text() == "mine"


async def test_selected_text_is_copied_by_ctrl_c(chat: Start) -> None:
    async with chat([Reply(text="alpha beta gamma")]) as one:
        await one.send("say it")
        await one.idle()
        row = next(n for n, text in enumerate(one.rows) if "alpha beta" in text)
        column = one.rows[row].index("alpha")
        await one.pilot.mouse_down(offset=(column, row))
        await one.pilot.hover(offset=(column + 9, row))
        await one.pilot.mouse_up(offset=(column + 9, row))
        await one.press("ctrl+c")
        await one.until(lambda: "alpha bet" in one.app.clipboard)


async def test_the_picker_finds_a_session_and_it_goes_on(chat: Start) -> None:
    script = [Reply(text="about cats"), Reply(text="about dogs"), Reply(text="more on cats")]
    async with chat(script) as one:
        await one.send("tell me of cats")
        await one.idle()
        await one.send("/clear")  # another name for /new
        await one.until(lambda: not one.entries(Said))
        await one.send("tell me of dogs")
        await one.until(lambda: one.entries(Answered))
        await one.idle()
        await one.send("/resume")
        await one.until(lambda: one.app.query(Chooser))
        await one.sees("tell me of cats", "tell me of dogs")
        await one.type("cats")
        await one.until(lambda: "tell me of dogs" not in "\n".join(one.rows[-14:]))
        await one.press("enter")
        await one.until(lambda: [a.text for a in one.entries(Answered)] == ["about cats"])
        await one.send("and?")
        await one.until(lambda: len(one.entries(Answered)) == 2)
        history = [message.text for message in one.agent.state.history]
        assert "tell me of cats" in history and "tell me of dogs" not in history


async def test_history_search_puts_an_earlier_prompt_back(chat: Start) -> None:
    async with chat([Reply(text="a"), Reply(text="b")]) as one:
        for text in ("fix the parser", "write the docs"):
            await one.send(text)
            await one.idle()
        await one.press("ctrl+r")
        await one.until(lambda: one.app.query(Chooser))
        await one.type("pars")
        await one.until(lambda: "write the docs" not in "\n".join(one.rows[-14:]))
        await one.press("enter")
        await one.until(lambda: one.app.prompt.text == "fix the parser")
        await one.press("ctrl+c", "up", "up")
        assert one.app.prompt.text == "fix the parser"


async def test_one_thing_is_chosen_at_a_time(chat: Start) -> None:
    async with chat([Reply(text="a")]) as one:
        await one.send("fix the parser")
        await one.idle()
        await one.press("ctrl+r")
        await one.until(lambda: one.app.query(Chooser))
        await one.press("ctrl+r")
        await one.press("enter")
        await one.until(lambda: one.app.prompt.text == "fix the parser")
        assert "internal error" not in one.text and not one.app.query(Chooser)


async def test_several_lines_are_one_message(chat: Start) -> None:
    async with chat([Reply(text="ok")]) as one:
        await one.type("one\ntwo\\")
        await one.press("enter")
        await one.type("three")
        assert one.app.prompt.text == "one\ntwo\nthree"
        one.app.post_message(events.Paste(" and\r\n\x1b[31mfour\x1b[0m\rfive"))
        await one.until(lambda: one.app.prompt.text.endswith("five"))
        await one.press("enter")
        await one.until(lambda: one.entries(Answered))
        assert one.entries(Said)[0].text == "one\ntwo\nthree and\nfour\nfive"


async def test_a_paste_leaves_control_characters_behind(chat: Start) -> None:
    async with chat() as one:
        await one.idle()
        one.app.post_message(events.Paste("a\x00b\x0ec\x7fd\x85e\n\tf \u65e5"))
        await one.until(lambda: one.app.prompt.text == "abcde\n\tf \u65e5", "the paste")


@pytest.mark.parametrize("theme", ["light", "contrast"])
async def test_themes_change_at_once(chat: Start, theme: str) -> None:
    async with chat() as one:
        await one.idle()
        await one.send(f"/theme {theme}")
        await one.until(lambda: one.app.theme == theme)


async def test_sixty_columns_wide_characters_and_resize(chat: Start, workspace: Path) -> None:
    (workspace / "漢字.txt").write_text("漢字" * 100 + "\n")
    script = [Reply(calls=[("shell", {"command": "cat 漢字.txt"})]), Reply(text="见 🎉 " * 40)]
    async with chat(script, mode="auto", size=(60, 20)) as one:
        await one.send("读 🎉")
        await one.idle()
        await one.sees("🎉", "auto", MARK)
        for width, height in ((120, 40), (40, 12), (60, 20)):
            await one.pilot.resize_terminal(width, height)
            await one.sees(MARK)
        assert all(cell_len(row) <= 60 for row in one.rows)


async def test_no_color_has_no_colour(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat([Reply(text="**grey** `only`")]) as one:
        await one.send("go")
        await one.idle()
        colours = set(re.findall(r"#[0-9a-f]{6}", one.app.export_screenshot()))
        inner = [c for c in colours if len({c[1:3], c[3:5], c[5:7]}) > 1]
        # Colours that the SVG export itself adds: three buttons and a default.
        assert set(inner) <= {"#ff5f57", "#febc2e", "#28c840", "#c5c8c6"}


async def test_an_error_before_the_first_message_is_told(chat: Start) -> None:
    async with chat(model="openai:x", session_id="20200101-000000-nobody") as one:
        await one.until(lambda: [t for t in one.entries(Told) if t.level == "error"])
        await one.sees("there is no session")


@pytest.mark.skipif(sys.platform != "linux", reason="the editor is a shell script")
async def test_the_editor_gets_the_prompt_and_gives_it_back(
    chat: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncat "$1" > "$0.saw"\nprintf "from outside\\n" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    async with chat() as one:
        monkeypatch.setattr(type(one.app), "outside", lambda app: _nothing())
        await one.type("from inside")
        await one.press("ctrl+g")
        await one.until(lambda: one.app.prompt.text == "from outside")
    assert (tmp_path / "editor.saw").read_text() == "from inside"


class _nothing:
    """Do nothing, because a test has no terminal to hand to the editor."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...
