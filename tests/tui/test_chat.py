"""A conversation on the screen: text, tools, steering, interrupting, quitting."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from textual import events

from agentcli.session.journal import Journal
from agentcli.tools.permissions import Mode
from agentcli.tui.entries import Answered, Said, Thought, Told, TurnEnded, Used
from tests.server import Reply
from tests.tui.conftest import Start

LONG = "one two three four " * 200


async def test_an_answer_streams_into_the_transcript(chat: Start) -> None:
    async with chat([Reply(thinking="Hm, let me see.", text="It is **done**.", piece=3)]) as one:
        await one.send("do it")
        await one.idle()
        assert [said.text for said in one.entries(Said)] == ["do it"]
        assert [answer.text for answer in one.entries(Answered)] == ["It is **done**."]
        assert [thought.text for thought in one.entries(Thought)] == ["Hm, let me see."]
        assert "It is done." in one.text  # Markdown is rendered
        assert "1 step" in one.text and "Thought" in one.text
        assert "Hm, let me see" not in one.text  # folded
        await one.press("ctrl+o")
        await one.sees("Hm, let me see.")


async def test_a_tool_has_a_card_with_its_folded_output(chat: Start, workspace: Path) -> None:
    (workspace / "a.txt").write_text("".join(f"line {n}\n" for n in range(40)))
    async with chat(
        [Reply(calls=[("shell", {"command": "cat a.txt"})]), Reply(text="seen")], mode="auto"
    ) as one:
        await one.send("look")
        await one.idle()
        (used,) = one.entries(Used)
        assert used.result is not None and used.result.outcome == "ok"
        await one.sees("● shell cat a.txt", "exit code 0", "line 39", "more lines (ctrl+o)")
        assert "line 20" not in one.text
        await one.press("ctrl+o")
        await one.sees("line 20")
        await one.press("ctrl+o")
        await one.sees("more lines (ctrl+o)")


async def test_an_edit_shows_its_diff(chat: Start, workspace: Path) -> None:
    (workspace / "a.py").write_text("def f():\n    return 1\n")
    edit = {"path": "a.py", "old": "return 1", "new": "return 2"}
    script = [Reply(calls=[("search_replace", edit)]), Reply(text="done")]
    async with chat(script, mode="edits") as one:
        await one.send("change it")
        await one.idle()
        await one.sees("+1 -1", "2 -     return 1", "2 +     return 2", "changed a.py")
        assert (workspace / "a.py").read_text().endswith("return 2\n")


async def test_a_turn_names_what_its_commands_changed(chat: Start, workspace: Path) -> None:
    (workspace / "old.txt").write_text("old\n")
    steps = ["echo made > new.txt; touch gone.txt", "rm gone.txt old.txt"]
    script = [Reply(calls=[("shell", {"command": step})]) for step in steps]
    async with chat([*script, Reply(text="done")], mode="auto") as one:
        await one.send("tidy up")
        await one.idle()
        (ended,) = one.entries(TurnEnded)
        assert ended.files == ("new.txt", "old.txt")
        await one.sees("changed new.txt, old.txt")


@pytest.mark.parametrize(
    "command", ["/model openai:other", "/compact", "/commit", "/undo", "/redo", "/rewind", "/fork"]
)
async def test_a_command_that_has_to_wait_says_so_and_the_turn_is_seen_to_go_on(
    chat: Start, command: str
) -> None:
    answered = threading.Event()
    async with chat([Reply(text="done", until=answered)]) as one:
        await one.send("begin")
        await one.sees("Waiting for the model", "esc interrupts")
        await one.send(command)
        await one.sees("a turn is running", "press Esc to interrupt it")
        await one.pilot.pause()
        assert "Waiting for the model" in one.text and "esc interrupts" in one.text
        answered.set()
        await one.idle()


async def test_the_hint_of_an_error_fits_the_chat(chat: Start) -> None:
    async with chat([Reply(status=429, code="insufficient_quota")]) as one:
        await one.send("begin")
        await one.sees("Add credit, or choose another model")
        assert "--model" not in one.text


async def test_a_new_session_has_made_no_step(chat: Start) -> None:
    async with chat([Reply(text="done")]) as one:
        await one.send("begin")
        await one.idle()
        await one.sees("step 1", "explore")
        await one.send("/new")
        await one.until(lambda: not one.entries(Said))
        await one.idle()
        assert "step 1" not in one.text and "explore" not in one.text


async def test_enter_steers_and_tab_queues_while_busy(chat: Start) -> None:
    said_all = threading.Event()
    slow = Reply(calls=[("list_dir", {})], until=said_all)
    async with chat([slow, Reply(text="first"), Reply(text="second")]) as one:
        await one.send("begin")
        await one.until(lambda: one.app.conversation and one.app.conversation.busy)
        await one.send("mind the gap")
        await one.sees("↳ next step  mind the gap")
        for text in ("and then this", "or not"):
            one.app.prompt.set_text(text)
            await one.press("tab")
        await one.sees("↳ queued  and then this", "↳ queued  or not")
        await one.press("up")  # takes the last one back
        assert one.app.prompt.text == "or not" and "queued  or not" not in one.text
        one.app.prompt.clear()
        said_all.set()
        await one.until(lambda: len(one.entries(TurnEnded)) == 2)
        said = [entry.text for entry in one.entries(Said)]
        assert said == ["begin", "mind the gap", "and then this"]


async def test_escape_interrupts_at_once_and_nothing_said_is_lost(chat: Start) -> None:
    async with chat([Reply(text=LONG, stall_after=4000), Reply(text="again")]) as one:
        await one.send("tell me a lot")
        await one.until(lambda: one.entries(Answered))
        await one.send("this was not read")
        await one.press("escape")
        await one.idle()
        assert "interrupted" in one.text
        assert one.app.prompt.text == "this was not read"
        assert one.entries(Answered)[0].text.startswith("one two")  # the partial answer stays
        await one.press("enter")
        await one.until(lambda: len(one.entries(TurnEnded)) == 2)
        assert one.entries(Answered)[-1].text == "again"


async def test_an_error_says_what_to_do(chat: Start) -> None:
    async with chat([Reply(status=401, code="invalid_api_key", message="bad key")]) as one:
        await one.send("hello")
        await one.idle()
        told = [entry for entry in one.entries(Told) if entry.level == "error"]
        assert len(told) == 1
        await one.sees("✗", "OPENAI_API_KEY")


async def test_text_that_a_full_disk_did_not_take_is_given_back(chat: Start) -> None:
    async with chat([Reply(text="First."), Reply(text="Second.")]) as one:
        await one.send("one")
        await one.idle()
        journal = one.agent.log
        assert isinstance(journal, Journal)
        kept, full = os.dup(journal._fd), os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._fd, inheritable=False)
        await one.send("two")
        await one.until(lambda: one.app.prompt.text == "two", "what was said comes back")
        await one.idle()
        told = [entry for entry in one.entries(Told) if entry.level == "error"]
        assert "No space left on device" in told[0].text and "free some space" in told[0].text
        os.dup2(kept, journal._fd, inheritable=False)
        await one.press("enter")
        await one.until(lambda: len(one.entries(Answered)) == 2, "the chat goes on")
        await one.idle()
        assert one.entries(Answered)[-1].text == "Second."
        os.close(kept)
        os.close(full)


async def test_an_unavailable_model_leaves_the_chat_usable(chat: Start) -> None:
    async with chat([Reply(text="here I am"), Reply(text="still")], model="nobody:x") as one:
        await one.send("are you there?")
        await one.sees('unknown provider "nobody"', "→", "no agent")
        await one.send("and now?")
        await one.sees("it will be told: and now?")
        await one.send("/model openai:scripted")
        await one.until(lambda: one.entries(Answered))
        assert one.entries(Answered)[0].text == "here I am"  # the first message was kept


async def test_without_an_agent_a_shell_command_says_so(chat: Start) -> None:
    async with chat(model="nobody:x") as one:
        await one.sees("no agent")
        await one.send("!ls")
        await one.sees("the agent is not ready yet")
        assert "internal error" not in one.text


async def test_the_session_chosen_last_is_open_in_the_mode_chosen_meanwhile(chat: Start) -> None:
    async with chat([Reply(text="first")]) as one:
        await one.send("hello")
        await one.idle()
        session = one.agent.session.session_id
        for chosen in (None, None, session):
            one.app.open(chosen)
        await one.app.set_mode(Mode.PLAN)
        await one.until(
            lambda: (
                (talk := one.app.conversation)
                and talk.agent
                and talk.agent.session.session_id == session
            )
        )
        agents = [worker for worker in one.app.workers if worker.group == "agent"]
        assert [worker.is_running for worker in agents] == [True]
        assert one.agent.session.mode == one.app.standing.mode == "plan"


async def test_escape_takes_back_what_waits_for_an_agent(chat: Start) -> None:
    async with chat(model="nobody:x") as one:
        await one.sees("no agent")
        await one.send("first")
        await one.send("second")
        await one.press("escape")
        await one.until(lambda: one.app.prompt.text == "first\nsecond")


async def test_ctrl_c_clears_then_quits(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcli.tui.app._TWICE_S", 3600.0)  # however slow the machine
    async with chat() as one:
        await one.type("abc")
        assert one.app.prompt.text == "abc"
        await one.press("ctrl+c")
        assert one.app.prompt.text == ""
        await one.press("ctrl+c")
        await one.sees("press ctrl+c again to quit")
        await one.press("ctrl+c")
        await one.until(lambda: one.app.return_code is not None)


async def test_ctrl_d_quits_only_where_nothing_is_written(chat: Start) -> None:
    async with chat() as one:
        await one.type("ab")
        await one.press("left", "ctrl+d")
        assert one.app.prompt.text == "a"
        await one.press("ctrl+c", "ctrl+d")
        await one.until(lambda: one.app.return_code is not None)


async def test_shift_tab_cycles_the_modes(chat: Start) -> None:
    async with chat([Reply(text="ok")]) as one:
        await one.idle()
        assert one.app.standing.mode == "ask"
        for mode in ("edits", "auto", "plan", "ask"):
            await one.press("shift+tab")

            def is_on(mode: str = mode) -> bool:
                return one.app.standing.mode == mode

            await one.until(is_on, mode)


async def test_modes_that_are_passed_leave_no_line(chat: Start) -> None:
    async with chat([Reply(text="ok")] * 2) as one:

        def told() -> list[str]:
            return [entry.text for entry in one.entries(Told) if entry.text.startswith("mode")]

        await one.send("go")
        await one.until(lambda: one.entries(TurnEnded))
        await one.press("shift+tab", "shift+tab", "shift+tab")
        await one.until(lambda: told() == ["mode plan"])
        await one.send("go on")
        await one.until(lambda: len(one.entries(TurnEnded)) == 2)
        await one.press("shift+tab")
        await one.until(lambda: told() == ["mode plan", "mode ask"])


async def test_nothing_a_tool_prints_can_break_the_screen(chat: Start, workspace: Path) -> None:
    bad = b"[bold red]x[/] \x1b[31mred\x1b[0m \x1b]0;title\x07 a\x00b \xff \xe2\x80\xae rtl \x1b[2J"
    (workspace / "bad").write_bytes(bad)
    async with chat(
        [Reply(calls=[("shell", {"command": "cat bad"})]), Reply(text="[/] \x1b[2J ok")],
        mode="auto",
    ) as one:
        await one.send("go \x1b[2J [bold]")
        await one.idle()
        await one.sees("[bold red]x[/] red", "[bold]")
        assert not any(ord(c) < 32 and c != "\n" for c in one.text)
        assert "\u202e" not in one.text and "\\u202e" in one.text


async def test_keys_that_arrive_together_keep_their_order(chat: Start) -> None:
    async with chat([]) as one:
        await one.type("abc")
        for key in ("backspace", "h", "left", "i"):
            character = key if len(key) == 1 else None
            one.app.post_message(events.Key(key, character))
        await one.press("end")
        assert one.app.prompt.text == "abih"
